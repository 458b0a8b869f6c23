//! From an adapter's tensors to what a model's sites get.

use std::collections::BTreeMap;
use std::sync::Arc;

use kernels::{Linear, LowRank, LowRankSource, LowRankTarget, Numerics, WeightSource, WeightType};

use super::embedding::AdapterEmbedding;
use super::file::{AdapterFile, ModuleTensors, Named};
use super::modules::{LinearModule, ModuleKind, Part};
use super::sites::SiteLayer;
use super::target::AdapterTarget;
use super::{AdapterError, AdapterOutput, AdapterSite, SavedNorm};

/// What comes of the tensors.
#[derive(Debug, Default)]
pub(super) struct Bound {
    pub(super) sites: BTreeMap<usize, AdapterSite>,
    pub(super) norms: BTreeMap<usize, SavedNorm>,
    pub(super) embedding: AdapterEmbedding,
    /// Last parts of modules' names.
    pub(super) targets: Vec<String>,
    pub(super) rank: usize,
}

/// Low-rank matrices of one module at a site.
struct Pair<'a> {
    a: Named<'a>,
    b: Named<'a>,
    scale: f32,
    rank: usize,
    parts: Vec<Part>,
    /// For each part what its outputs are multiplied by.
    column_scales: Vec<Option<Vec<f32>>>,
}

pub(super) fn bind(file: &AdapterFile, target: &AdapterTarget) -> Result<Bound, AdapterError> {
    let names = match file {
        AdapterFile::Peft { .. } => target.hugging_face(),
        AdapterFile::Gguf { .. } => target.gguf().ok_or_else(|| {
            let message =
                "an adapter in GGUF fits a model in GGUF only; this one is in safetensors";
            AdapterError::refused(file.path(), message)
        })?,
    };
    let mut binder = Binder {
        file,
        target,
        bound: Bound::default(),
        pairs: BTreeMap::new(),
    };
    for (name, tensors) in file.modules()? {
        let Some((name, module)) = names.find(&name) else {
            let tensor = tensors.first().expect("a module comes from a tensor");
            let architecture = &target.config().architecture;
            let message = format!("has no place: {architecture} has no module `{name}`");
            return Err(file.refuse_tensor(tensor, &message));
        };
        file.check_place(&name, module.layer, &tensors)?;
        match &module.kind {
            ModuleKind::Linear(linear) => binder.linear(&name, linear, &tensors)?,
            ModuleKind::Norm(id) => binder.norm(*id, &tensors)?,
            ModuleKind::Embedding => binder.embedding(&name, &tensors)?,
        }
        let short = name.rsplit('.').next().unwrap_or(&name).to_string();
        binder.bound.targets.push(short);
    }
    binder.finish()
}

pub(super) struct Binder<'a> {
    pub(super) file: &'a AdapterFile,
    pub(super) target: &'a AdapterTarget,
    pub(super) bound: Bound,
    /// By site.
    pairs: BTreeMap<usize, Vec<Pair<'a>>>,
}

impl<'a> Binder<'a> {
    fn linear(
        &mut self,
        name: &str,
        module: &LinearModule,
        tensors: &ModuleTensors<'a>,
    ) -> Result<(), AdapterError> {
        self.allow(
            tensors,
            &["a", "b", "b_bias", "magnitude", "weight", "bias"],
        )?;
        let layers = self.target.layers(module.site);
        let width = |part: &Part| layers[part.output].weight.n_out();
        let first = &layers[module.parts[0].output];
        let adds_shifts = first.adds_shifts();
        let pair = self.pair(name, module, tensors)?;
        // Whether there is a bias, the part knows that adds it.
        self.check_saved(module, tensors, first.bias.is_some() || !adds_shifts)?;
        let own_bias = tensors.bias.as_ref().filter(|_| adds_shifts);
        let own_bias = own_bias.map(Named::values);
        let b_bias = tensors.b_bias.as_ref().filter(|_| adds_shifts);
        let b_bias = b_bias.map(Named::values);
        for (i, part) in module.parts.iter().enumerate() {
            let config = self.target.config();
            let n_out = width(part);
            let first_row = layers[part.output].first_row();
            let rows = (0..n_out).map(|row| part.row(config, first_row + row));
            let rows: Vec<usize> = rows.collect();
            let scale = pair.as_ref().and_then(|pair| pair.column_scales[i].clone());
            let base_bias = layers[part.output].bias.as_ref();
            let base_bias = base_bias.map(|bias| bias.read(0..n_out).into_owned());
            let replaced = match &tensors.weight {
                Some(weight) => Some(self.replacement(weight, module, &rows)?),
                None => None,
            };
            // `y' = c y + shift` must end in the adapter's bias, and `y` has the model's.
            let kept = |i: usize| match (&replaced, &scale) {
                (Some(_), _) => 0.0,
                (None, Some(scale)) => f64::from(scale[i]),
                (None, None) => 1.0,
            };
            let mut shift: Option<Vec<f64>> = None;
            if let Some(base) = &base_bias
                && (own_bias.is_some() || scale.is_some() || replaced.is_some())
            {
                let own = |i: usize| own_bias.as_ref().map_or(base[i], |own| own[rows[i]]);
                let value = |i| f64::from(own(i)) - kept(i) * f64::from(base[i]);
                shift = Some((0..n_out).map(value).collect());
            }
            if let (Some(b_bias), Some(pair)) = (&b_bias, &pair) {
                let shift = shift.get_or_insert_with(|| vec![0.0; n_out]);
                for (shift, row) in shift.iter_mut().zip(&rows) {
                    *shift += f64::from(pair.scale) * f64::from(b_bias[*row]);
                }
            }
            if scale.is_some() || shift.is_some() || replaced.is_some() {
                let site = self.bound.sites.entry(module.site).or_default();
                site.outputs.push(AdapterOutput {
                    output: part.output,
                    scale,
                    shift,
                    replaced,
                });
            }
        }
        if let Some(pair) = pair {
            self.bound.rank = self.bound.rank.max(pair.rank);
            self.pairs.entry(module.site).or_default().push(pair);
        }
        self.tokens_of_head(name, module, tensors)
    }

    /// Checks a matrix and a bias that stand in the place of the model's.
    fn check_saved(
        &self,
        module: &LinearModule,
        tensors: &ModuleTensors<'a>,
        has_bias: bool,
    ) -> Result<(), AdapterError> {
        if let Some(bias) = &tensors.bias {
            if !has_bias {
                let message = "has no place: the model has no such bias";
                return Err(self.file.refuse_tensor(bias, message));
            }
            bias.check(&[module.n_out])?;
        }
        if let Some(weight) = &tensors.weight {
            let shape = if module.transposed {
                [module.n_in, module.n_out]
            } else {
                [module.n_out, module.n_in]
            };
            weight.check(&shape)?;
            if tensors.a.is_some() {
                let message = "and low-rank matrices for the same module are not supported";
                return Err(self.file.refuse_tensor(weight, message));
            }
        }
        Ok(())
    }

    /// The low-rank matrices of a module, checked.
    fn pair(
        &self,
        name: &str,
        module: &LinearModule,
        tensors: &ModuleTensors<'a>,
    ) -> Result<Option<Pair<'a>>, AdapterError> {
        let (a, b) = match (&tensors.a, &tensors.b) {
            (Some(a), Some(b)) => (a, b),
            (Some(a), None) => {
                return Err(self.file.refuse_tensor(a, "is there without its lora_B"));
            }
            (None, Some(b)) => {
                return Err(self.file.refuse_tensor(b, "is there without its lora_A"));
            }
            (None, None) => {
                let lone = [&tensors.b_bias, &tensors.magnitude];
                return match lone.into_iter().flatten().next() {
                    Some(lone) => Err(self.file.refuse_tensor(lone, "is there without lora_A")),
                    None => Ok(None),
                };
            }
        };
        let found = a.tensor.shape.first().copied().unwrap_or(0);
        let (rank, scale) = self.file.rank_and_scale(name, found)?;
        a.check(&[rank, module.n_in])?;
        b.check(&[module.n_out, rank])?;
        let config = self.file.config();
        if let Some(bias) = &tensors.b_bias {
            bias.check(&[module.n_out])?;
            if !config.is_some_and(|config| config.has_lora_bias && !config.is_dora) {
                let message =
                    "has no place: adapter_config.json says lora_bias false or use_dora true";
                return Err(self.file.refuse_tensor(bias, message));
            }
        }
        let mut pair = Pair {
            a: a.clone(),
            b: b.clone(),
            scale,
            rank,
            parts: module.parts.clone(),
            column_scales: vec![None; module.parts.len()],
        };
        match (
            &tensors.magnitude,
            config.is_some_and(|config| config.is_dora),
        ) {
            (Some(magnitude), true) => {
                magnitude.check(&[module.n_out])?;
                let is_cut = |layer: &SiteLayer| layer.weight.n_in() != module.n_in;
                if self.target.layers(module.site).iter().any(is_cut) {
                    let message = "is for whole rows (use_dora), but the layer is cut by inputs";
                    return Err(self.file.refuse_tensor(magnitude, message));
                }
                self.decompose(module, &mut pair, &magnitude.values());
            }
            (Some(magnitude), false) => {
                let message = "has no place: adapter_config.json says use_dora false";
                return Err(self.file.refuse_tensor(magnitude, message));
            }
            (None, true) => {
                return Err(self
                    .file
                    .refuse(name, "use_dora needs its lora_magnitude_vector"));
            }
            (None, false) => {}
        }
        Ok(Some(pair))
    }

    /// DoRA (<https://arxiv.org/abs/2402.09353>): each row of `W + s B A` gets a length of its
    /// own. Here that is a factor for each output, from the model's weights as they are in memory.
    fn decompose(&self, module: &LinearModule, pair: &mut Pair<'_>, magnitude: &[f32]) {
        let config = self.target.config();
        let (a, b) = (pair.a.values(), pair.b.values());
        let (n_in, rank) = (module.n_in, pair.rank);
        let mut row = vec![0.0; n_in];
        for (part, scales) in pair.parts.iter().zip(&mut pair.column_scales) {
            let layer = &self.target.layers(module.site)[part.output];
            let (weight, first_row) = (&layer.weight, layer.first_row());
            let scale = |i: usize| {
                let stored = part.row(config, first_row + i);
                weight.read_row(i, &mut row);
                for (k, b) in b[stored * rank..][..rank].iter().enumerate() {
                    for (w, a) in row.iter_mut().zip(&a[k * n_in..][..n_in]) {
                        *w += pair.scale * b * a;
                    }
                }
                let squares: f64 = row.iter().map(|w| f64::from(*w) * f64::from(*w)).sum();
                (f64::from(magnitude[stored]) / squares.sqrt()) as f32
            };
            *scales = Some((0..weight.n_out()).map(scale).collect());
        }
    }

    /// A saved matrix, packed.
    fn replacement(
        &self,
        saved: &Named<'_>,
        module: &LinearModule,
        rows: &[usize],
    ) -> Result<Arc<Linear>, AdapterError> {
        let width = saved.tensor.ty.block_bytes();
        let (n_in, n_stored) = (module.n_in, module.n_out);
        let value = |row: usize, k: usize| match module.transposed {
            true => (k * n_stored + row) * width,
            false => (row * n_in + k) * width,
        };
        let columns = self.target.layers(module.site)[0].columns();
        let mut bytes = Vec::with_capacity(rows.len() * columns.len() * width);
        for &row in rows {
            for k in columns.clone() {
                bytes.extend_from_slice(&saved.tensor.bytes[value(row, k)..][..width]);
            }
        }
        self.pack(saved, bytes, [rows.len(), columns.len()])
    }

    pub(super) fn pack(
        &self,
        saved: &Named<'_>,
        bytes: Vec<u8>,
        [n_out, n_in]: [usize; 2],
    ) -> Result<Arc<Linear>, AdapterError> {
        let source = WeightSource {
            ty: saved.tensor.ty,
            n_out,
            n_in,
            bytes: bytes.into(),
        };
        Linear::pack(self.target.device(), &source, Numerics::F32)
            .map(Arc::new)
            .map_err(|error| AdapterError::failed(self.file.path(), error.to_string()))
    }

    fn norm(&mut self, id: usize, tensors: &ModuleTensors<'a>) -> Result<(), AdapterError> {
        self.allow(tensors, &["weight", "bias"])?;
        let Some((weight, bias)) = self.target.norm(id) else {
            let tensor = tensors.first().expect("a module comes from a tensor");
            return Err(self
                .file
                .refuse_tensor(tensor, "has no place: the model's norm has no weights"));
        };
        let offset = self.target.norm_offset();
        let mut saved = SavedNorm::default();
        if let Some(own) = &tensors.weight {
            own.check(&[weight.len()])?;
            saved.weight = Some(own.values().iter().map(|x| x + offset).collect());
        }
        if let Some(own) = &tensors.bias {
            if bias.is_none() {
                return Err(self
                    .file
                    .refuse_tensor(own, "has no place: the model has no such bias"));
            }
            own.check(&[weight.len()])?;
            saved.bias = Some(own.values());
        }
        self.bound.norms.insert(id, saved);
        Ok(())
    }

    pub(super) fn pack_low_rank(
        &self,
        sources: &[LowRankSource<'_>],
    ) -> Result<Vec<Arc<LowRank>>, AdapterError> {
        LowRank::pack(self.target.device(), sources)
            .map(|all| all.into_iter().map(Arc::new).collect())
            .map_err(|error| AdapterError::failed(self.file.path(), error.to_string()))
    }

    /// Refuses tensors of kinds that a module does not have.
    pub(super) fn allow(
        &self,
        tensors: &ModuleTensors<'_>,
        kinds: &[&str],
    ) -> Result<(), AdapterError> {
        for (kind, tensor) in tensors.all() {
            let is_token = kind == "tokens";
            if let Some(tensor) = tensor
                && !kinds.contains(&kind)
                && !is_token
            {
                return Err(self
                    .file
                    .refuse_tensor(tensor, "does not fit the kind of its module"));
            }
        }
        Ok(())
    }

    /// Packs low-rank matrices site by site.
    fn finish(mut self) -> Result<Bound, AdapterError> {
        let config = self.target.config();
        let mut numbers = Vec::new();
        let mut sources = Vec::new();
        for (number, pairs) in std::mem::take(&mut self.pairs) {
            let ty = common_type(&pairs);
            let layers = self.target.layers(number);
            let mut source = LowRankSource {
                ty,
                n_in: layers[0].weight.n_in(),
                a: Vec::new().into(),
                scales: Vec::new(),
                targets: Vec::new(),
            };
            for pair in pairs {
                let first_rank = source.scales.len();
                let (a, columns) = (pair.a.bytes_as(ty), layers[0].columns());
                let width = ty.block_bytes();
                for row in a.chunks_exact((a.len() / pair.rank.max(1)).max(1)) {
                    let own = &row[width * columns.start..width * columns.end];
                    source.a.to_mut().extend_from_slice(own);
                }
                source.scales.resize(first_rank + pair.rank, pair.scale);
                let b = pair.b.bytes_as(ty);
                let row_bytes = pair.rank * ty.block_bytes();
                for (part, column_scale) in pair.parts.iter().zip(pair.column_scales) {
                    let n_out = layers[part.output].weight.n_out();
                    let mut rows = Vec::with_capacity(n_out * row_bytes);
                    let first_row = layers[part.output].first_row();
                    for row in first_row..first_row + n_out {
                        let at = part.row(config, row) * row_bytes;
                        rows.extend_from_slice(&b[at..at + row_bytes]);
                    }
                    source.targets.push(LowRankTarget {
                        output: part.output,
                        n_out,
                        first_rank,
                        rank: pair.rank,
                        b: rows.into(),
                        column_scale,
                    });
                }
            }
            numbers.push(number);
            sources.push(source);
        }
        for (number, packed) in numbers.iter().zip(self.pack_low_rank(&sources)?) {
            let site = self.bound.sites.entry(*number).or_default();
            site.low_rank.insert(0, packed);
        }
        self.bound.targets.sort();
        self.bound.targets.dedup();
        Ok(self.bound)
    }
}

/// The type of all matrices if it is one, or one that holds every value.
fn common_type(pairs: &[Pair<'_>]) -> WeightType {
    let mut types = pairs
        .iter()
        .flat_map(|pair| [pair.a.tensor.ty, pair.b.tensor.ty]);
    let first = types.next().unwrap_or(WeightType::F32);
    if types.all(|ty| ty == first) {
        first
    } else {
        WeightType::F32
    }
}

impl<'a> ModuleTensors<'a> {
    /// All of them, by kind.
    pub(super) fn all(&self) -> [(&'static str, Option<&Named<'a>>); 9] {
        [
            ("a", self.a.as_ref()),
            ("b", self.b.as_ref()),
            ("b_bias", self.b_bias.as_ref()),
            ("magnitude", self.magnitude.as_ref()),
            ("embedding_a", self.embedding_a.as_ref()),
            ("embedding_b", self.embedding_b.as_ref()),
            ("tokens", self.tokens.as_ref()),
            ("weight", self.weight.as_ref()),
            ("bias", self.bias.as_ref()),
        ]
    }

    pub(crate) fn first(&self) -> Option<&Named<'a>> {
        self.all().into_iter().find_map(|(_, tensor)| tensor)
    }
}
