//! What caches hold.

use kernels::cuda::{self, DevicePtr, KvScales, KvStorage, Rope};
use kernels::{
    Buffer, CpuOptions, Device, KvCache, KvShape, KvType, RopeAngles, RopeStyle, RopeWriteKv,
    StoredKv,
};

use crate::common::Rng;
use crate::gpu::{CAPABILITIES, Gpu};

/// A head of one slot as a cache keeps it.
#[derive(Clone, Debug)]
pub(crate) struct Coded {
    pub(crate) bytes: Vec<u8>,
    /// What loaded codes are multiplied by.
    pub(crate) scale: f32,
    /// What the bytes mean.
    pub(crate) values: Vec<f32>,
}

/// The value of a code of E4M3.
fn e4m3(bits: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(bits >> 3 & 15), f32::from(bits & 7));
    let size = if exponent == 0 {
        mantissa / 512.0
    } else {
        (1.0 + mantissa / 8.0) * 2.0_f32.powi(exponent - 7)
    };
    if bits & 128 == 0 { size } else { -size }
}

fn nearest_e4m3(x: f32) -> u8 {
    let codes = (0..=255_u8).filter(|code| code & 0x7f != 0x7f);
    let far = |code: u8| (e4m3(code) - x).abs();
    codes
        .min_by(|a, b| far(*a).total_cmp(&far(*b)))
        .expect("codes")
}

/// Stores a head, by the definition of each type.
pub(crate) fn coded(storage: KvStorage, head: &[f32]) -> Coded {
    let largest = head.iter().fold(0.0_f32, |size, x| size.max(x.abs()));
    let (bytes, values): (Vec<Vec<u8>>, Vec<f32>) = head
        .iter()
        .map(|&x| match storage {
            KvStorage::F32 => (x.to_le_bytes().to_vec(), x),
            KvStorage::Bf16 => {
                let x = half::bf16::from_f32(x);
                (x.to_le_bytes().to_vec(), x.to_f32())
            }
            KvStorage::Int8 => {
                let code = (x * (127.0 / largest)).round_ties_even() as i8;
                (vec![code as u8], f32::from(code) * (largest / 127.0))
            }
            KvStorage::Fp8 => {
                let code = nearest_e4m3(x * (448.0 / largest));
                (vec![code], e4m3(code) * (largest / 448.0))
            }
        })
        .unzip();
    let scale = match storage {
        KvStorage::Int8 => largest / 127.0,
        KvStorage::Fp8 => largest / 448.0 * 256.0,
        KvStorage::F32 | KvStorage::Bf16 => 1.0,
    };
    Coded {
        bytes: bytes.concat(),
        scale,
        values,
    }
}

const N_ROWS: usize = 6;
const SLOTS: [u32; N_ROWS] = [63, 0, 17, 16, 5, 40];
const N_HEADS: usize = 2;

/// What both write.
struct Inputs {
    shape: KvShape,
    k: Vec<f32>,
    v: Vec<f32>,
    cos: Vec<f32>,
    sin: Vec<f32>,
    rotary_dim: usize,
    style: RopeStyle,
}

impl Inputs {
    fn new(head_dim: usize, rotary_dim: usize, style: RopeStyle) -> Self {
        let shape = KvShape {
            n_layers: 1,
            n_blocks: 4,
            block_size: 16,
            n_kv_heads: 3,
            head_dim,
        };
        let width = shape.n_kv_heads * head_dim;
        let mut rng = Rng(head_dim as u64);
        let mut k = rng.values(N_ROWS * width);
        let mut v: Vec<f32> = rng.values(k.len()).iter().map(|x| x * 300.0).collect();
        // Nothing, hardly anything, and what is not a number.
        v[..head_dim].fill(0.0);
        v[width..][..head_dim].fill(1e-42);
        v[2 * width] = f32::NAN;
        v[3 * width + 1] = f32::NEG_INFINITY;
        k[4 * width..][..head_dim].fill(-0.0);
        let angles = rng.values(N_ROWS * rotary_dim / 2);
        Self {
            shape,
            k,
            v,
            cos: angles.iter().map(|x| x.cos()).collect(),
            sin: angles.iter().map(|x| x.sin()).collect(),
            rotary_dim,
            style,
        }
    }

    fn on_cpu(&self, ty: KvType) -> KvCache {
        let device = Device::cpu(CpuOptions::default());
        let mut kv = KvCache::new(&device, self.shape, ty).expect("little memory");
        let mut q = Buffer::zeros(&device, N_ROWS * N_HEADS * self.shape.head_dim);
        let k = Buffer::from_slice(&device, &self.k);
        let v = Buffer::from_slice(&device, &self.v);
        device.rope_write_kv(RopeWriteKv {
            q: &mut q,
            k: &k,
            v: &v,
            n_heads: N_HEADS,
            angles: RopeAngles {
                cos: &self.cos,
                sin: &self.sin,
                rotary_dim: self.rotary_dim,
                style: self.style,
            },
            slots: &SLOTS,
            layer: 0,
            kv: &mut kv,
        });
        kv
    }

    fn on_gpu(&self, gpu: &mut Gpu, storage: KvStorage) -> Written {
        let n = self.shape.n_blocks * self.shape.block_size * self.shape.n_kv_heads;
        let (keys, values) = (gpu.upload(&self.k), gpu.upload(&self.v));
        let q = vec![0.0_f32; N_ROWS * N_HEADS * self.shape.head_dim];
        let op = Rope {
            q: gpu.upload(&q),
            k: keys,
            v: values,
            cos: gpu.upload(&self.cos),
            sin: gpu.upload(&self.sin),
            slots: gpu.upload(&SLOTS),
            keys: gpu.alloc(n * self.shape.head_dim * 4),
            values: gpu.alloc(n * self.shape.head_dim * 4),
            scales: if storage.has_scales() {
                KvScales {
                    keys: gpu.alloc(n * 4),
                    values: gpu.alloc(n * 4),
                }
            } else {
                KvScales::default()
            },
            storage,
            style: self.style,
            n_heads: N_HEADS,
            n_kv_heads: self.shape.n_kv_heads,
            head_dim: self.shape.head_dim,
            rotary_dim: self.rotary_dim,
            block_size: self.shape.block_size,
        };
        gpu.run(&cuda::rope_write_kv(&op, N_ROWS));
        Written {
            shape: self.shape,
            op,
        }
    }
}

struct Written {
    shape: KvShape,
    op: Rope,
}

impl Written {
    fn stored(&self, gpu: &Gpu, slot: usize, head: usize) -> StoredKv {
        let (block, offset) = (slot / self.shape.block_size, slot % self.shape.block_size);
        let at = (block * self.shape.n_kv_heads + head) * self.shape.block_size + offset;
        let n_bytes = match self.op.storage {
            KvStorage::F32 => 4,
            KvStorage::Bf16 => 2,
            KvStorage::Int8 | KvStorage::Fp8 => 1,
        } * self.shape.head_dim;
        let bytes = |from: DevicePtr| gpu.download::<u8>(from.offset(at * n_bytes), n_bytes);
        let scale = |from: DevicePtr| gpu.download::<f32>(from.offset(at * 4), 1)[0];
        StoredKv {
            key: bytes(self.op.keys),
            value: bytes(self.op.values),
            scales: self
                .op
                .storage
                .has_scales()
                .then(|| (scale(self.op.scales.keys), scale(self.op.scales.values))),
        }
    }
}

/// Of a head with a value that is not a number only the scale counts.
fn assert_equal(found: &StoredKv, expected: &StoredKv, of: &str) {
    let scales = |kv: &StoredKv| kv.scales.unwrap_or((1.0, 1.0));
    let ((fk, fv), (ek, ev)) = (scales(found), scales(expected));
    assert!(fk == ek || (fk.is_nan() && ek.is_nan()), "{of}: {fk}, {ek}");
    assert!(fv == ev || (fv.is_nan() && ev.is_nan()), "{of}: {fv}, {ev}");
    assert_eq!(found.key, expected.key, "{of}: key");
    if !ev.is_nan() {
        assert_eq!(found.value, expected.value, "{of}: value");
    }
}

#[test]
fn caches_hold_the_bytes_of_the_cpu() {
    let types = [
        (KvStorage::Int8, KvType::Int8),
        (KvStorage::Fp8, KvType::Fp8),
        (KvStorage::Bf16, KvType::Bf16),
    ];
    let shapes = [
        (64, 64, RopeStyle::Half),
        (80, 20, RopeStyle::Interleaved),
        (8, 0, RopeStyle::Half),
        (576, 64, RopeStyle::Interleaved),
    ];
    for capability in CAPABILITIES {
        for (storage, ty) in types {
            for (head_dim, rotary_dim, style) in shapes {
                let inputs = Inputs::new(head_dim, rotary_dim, style);
                let kv = inputs.on_cpu(ty);
                let mut gpu = Gpu::of(capability);
                let written = inputs.on_gpu(&mut gpu, storage);
                for (row, slot) in SLOTS.into_iter().enumerate() {
                    for head in 0..inputs.shape.n_kv_heads {
                        let of = format!("{ty:?}, {head_dim} values, row {row}, head {head}");
                        let expected = kv.stored(0, slot as usize, head).expect("of the host");
                        let mut found = written.stored(&gpu, slot as usize, head);
                        if storage == KvStorage::Bf16 && (row, head) == (2, 0) {
                            // The sign and payload of what is not a number are the device's own.
                            found.value[..2].copy_from_slice(&expected.value[..2]);
                        }
                        assert_equal(&found, &expected, &of);
                    }
                }
            }
        }
    }
}
