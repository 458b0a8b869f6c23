//! The compiled kernels. Written by `cargo xtask kernels`.

use super::Image;

/// Of each name, the oldest architecture first.
pub(super) static IMAGES: &[Image] = &[
    Image {
        name: "activate",
        capability: (8, 0),
        is_exact: false,
        ptx: include_str!("../../ptx/sm_80/activate.ptx"),
    },
    Image {
        name: "attention",
        capability: (8, 0),
        is_exact: false,
        ptx: include_str!("../../ptx/sm_80/attention.ptx"),
    },
    Image {
        name: "attention_heads",
        capability: (8, 0),
        is_exact: false,
        ptx: include_str!("../../ptx/sm_80/attention_heads.ptx"),
    },
    Image {
        name: "attention_rows",
        capability: (8, 0),
        is_exact: false,
        ptx: include_str!("../../ptx/sm_80/attention_rows.ptx"),
    },
    Image {
        name: "attention_rows",
        capability: (9, 0),
        is_exact: true,
        ptx: include_str!("../../ptx/sm_90a/attention_rows.ptx"),
    },
    Image {
        name: "convert_rows",
        capability: (8, 0),
        is_exact: false,
        ptx: include_str!("../../ptx/sm_80/convert_rows.ptx"),
    },
    Image {
        name: "copy_blocks",
        capability: (8, 0),
        is_exact: false,
        ptx: include_str!("../../ptx/sm_80/copy_blocks.ptx"),
    },
    Image {
        name: "elementwise",
        capability: (8, 0),
        is_exact: false,
        ptx: include_str!("../../ptx/sm_80/elementwise.ptx"),
    },
    Image {
        name: "embed",
        capability: (8, 0),
        is_exact: false,
        ptx: include_str!("../../ptx/sm_80/embed.ptx"),
    },
    Image {
        name: "embed",
        capability: (9, 0),
        is_exact: true,
        ptx: include_str!("../../ptx/sm_90a/embed.ptx"),
    },
    Image {
        name: "linear_dense",
        capability: (8, 0),
        is_exact: false,
        ptx: include_str!("../../ptx/sm_80/linear_dense.ptx"),
    },
    Image {
        name: "linear_exact",
        capability: (8, 0),
        is_exact: false,
        ptx: include_str!("../../ptx/sm_80/linear_exact.ptx"),
    },
    Image {
        name: "linear_exact",
        capability: (9, 0),
        is_exact: true,
        ptx: include_str!("../../ptx/sm_90a/linear_exact.ptx"),
    },
    Image {
        name: "linear_quant256",
        capability: (8, 0),
        is_exact: false,
        ptx: include_str!("../../ptx/sm_80/linear_quant256.ptx"),
    },
    Image {
        name: "linear_quant32",
        capability: (8, 0),
        is_exact: false,
        ptx: include_str!("../../ptx/sm_80/linear_quant32.ptx"),
    },
    Image {
        name: "linear_wgmma",
        capability: (9, 0),
        is_exact: true,
        ptx: include_str!("../../ptx/sm_90a/linear_wgmma.ptx"),
    },
    Image {
        name: "norm_rows",
        capability: (8, 0),
        is_exact: false,
        ptx: include_str!("../../ptx/sm_80/norm_rows.ptx"),
    },
    Image {
        name: "rope_write_kv",
        capability: (8, 0),
        is_exact: false,
        ptx: include_str!("../../ptx/sm_80/rope_write_kv.ptx"),
    },
    Image {
        name: "route",
        capability: (8, 0),
        is_exact: false,
        ptx: include_str!("../../ptx/sm_80/route.ptx"),
    },
    Image {
        name: "rows",
        capability: (8, 0),
        is_exact: false,
        ptx: include_str!("../../ptx/sm_80/rows.ptx"),
    },
    Image {
        name: "sample",
        capability: (8, 0),
        is_exact: false,
        ptx: include_str!("../../ptx/sm_80/sample.ptx"),
    },
];
