//! Capability MSRs and CPUID leaves recorded on real processors, and Bochs's, for the tests.
//!
//! The values of the real ones are facts from the public InstLatX64 CPUID dumps (family, model and stepping are in leaf 1).

use crate::caps::{Capabilities, msr};

/// One recorded processor.
pub struct Machine {
    /// What it is called.
    pub name: &'static str,
    /// CPUID.1: EAX, EBX, ECX, EDX.
    pub leaf1: [u32; 4],
    /// CPUID.7.0: EAX, EBX, ECX, EDX.
    pub leaf7: [u32; 4],
    /// CPUID.0AH: EAX, EBX, ECX, EDX.
    pub leaf_a: [u32; 4],
    /// CPUID.1AH:EAX.
    pub leaf_1a: u32,
    /// The capability MSRs.
    pub msrs: &'static [(u32, u64)],
}

impl Machine {
    /// RDMSR on this machine. The dumps are older than the last three MSRs, which then allow nothing.
    pub fn msr(&self, number: u32) -> Option<u64> {
        let found = self.msrs.iter().find(|(n, _)| *n == number).map(|(_, value)| *value);
        found.or(matches!(number, msr::VMFUNC | msr::PROCBASED_CTLS3 | msr::EXIT_CTLS2).then_some(0))
    }

    /// Its capabilities.
    pub fn capabilities(&self) -> Capabilities {
        Capabilities::from_reader(|number| self.msr(number)).unwrap()
    }
}

/// Core 2 (Conroe): no secondary controls, no EPT.
pub const CONROE: Machine = Machine {
    name: "Core 2",
    leaf1: [0x6f6, 0x2_0800, 0xe3bd, 0xbfeb_fbff],
    leaf7: [0x0, 0x0, 0x0, 0x0],
    leaf_a: [0x728_0202, 0x0, 0x0, 0x0],
    leaf_1a: 0x0,
    msrs: &[
        (0x480, 0x1a_0400_0000_0007),
        (0x481, 0x1f_0000_0016),
        (0x482, 0x77b9_fffe_0401_e172),
        (0x483, 0x3_efff_0003_6dff),
        (0x484, 0x1fff_0000_11ff),
        (0x485, 0x4_03c0),
        (0x486, 0x8000_0021),
        (0x487, 0xffff_ffff),
        (0x488, 0x2000),
        (0x489, 0x27ff),
        (0x48a, 0x2c),
    ],
};

/// Core 2 (Yorkfield): secondary controls without EPT.
pub const YORKFIELD: Machine = Machine {
    name: "Core 2",
    leaf1: [0x1_0676, 0x4_0800, 0x8_e3bd, 0xbfeb_fbff],
    leaf7: [0x0, 0x0, 0x0, 0x0],
    leaf_a: [0x728_0202, 0x0, 0x0, 0x503],
    leaf_1a: 0x0,
    msrs: &[
        (0x480, 0x5a_0800_0000_000d),
        (0x481, 0x3f_0000_0016),
        (0x482, 0xf7f9_fffe_0401_e172),
        (0x483, 0x3_ffff_0003_6dff),
        (0x484, 0x3fff_0000_11ff),
        (0x485, 0x4_03c0),
        (0x486, 0x8000_0021),
        (0x487, 0xffff_ffff),
        (0x488, 0x2000),
        (0x489, 0x27ff),
        (0x48a, 0x2c),
        (0x48b, 0x41_0000_0000),
    ],
};

/// Westmere (Gulftown): the first with unrestricted guest.
pub const GULFTOWN: Machine = Machine {
    name: "Westmere",
    leaf1: [0x2_06c2, 0x20_0800, 0x29e_e3ff, 0xbfeb_fbff],
    leaf7: [0x0, 0x0, 0x0, 0x9c00_0000],
    leaf_a: [0x730_0403, 0x4, 0x0, 0x603],
    leaf_1a: 0x0,
    msrs: &[
        (0x480, 0xda_0400_0000_000f),
        (0x481, 0x7f_0000_0016),
        (0x482, 0xfff9_fffe_0401_e172),
        (0x483, 0x7f_ffff_0003_6dff),
        (0x484, 0xffff_0000_11ff),
        (0x485, 0x4_01e7),
        (0x486, 0x8000_0021),
        (0x487, 0xffff_ffff),
        (0x488, 0x2000),
        (0x489, 0x2_67ff),
        (0x48a, 0x2a),
        (0x48b, 0x4ff_0000_0000),
        (0x48c, 0xf01_0613_4141),
        (0x48d, 0x7f_0000_0016),
        (0x48e, 0xfff9_fffe_0400_6172),
        (0x48f, 0x7f_ffff_0003_6dfb),
        (0x490, 0xffff_0000_11fb),
    ],
};

/// Sandy Bridge-E.
pub const SANDY_BRIDGE_E: Machine = Machine {
    name: "Sandy Bridge-E",
    leaf1: [0x2_06d7, 0x20_0800, 0x1fbe_e3bf, 0xbfeb_fbff],
    leaf7: [0x0, 0x0, 0x0, 0x9c00_0400],
    leaf_a: [0x730_0403, 0x0, 0x0, 0x603],
    leaf_1a: 0x0,
    msrs: &[
        (0x480, 0xda_0400_0000_0010),
        (0x481, 0x7f_0000_0016),
        (0x482, 0xfff9_fffe_0401_e172),
        (0x483, 0x7f_ffff_0003_6dff),
        (0x484, 0xffff_0000_11ff),
        (0x485, 0x1004_01e5),
        (0x486, 0x8000_0021),
        (0x487, 0xffff_ffff),
        (0x488, 0x2000),
        (0x489, 0x6_27ff),
        (0x48a, 0x2a),
        (0x48b, 0x4ff_0000_0000),
        (0x48c, 0xf01_0613_4141),
        (0x48d, 0x7f_0000_0016),
        (0x48e, 0xfff9_fffe_0400_6172),
        (0x48f, 0x7f_ffff_0003_6dfb),
        (0x490, 0xffff_0000_11fb),
    ],
};

/// Haswell-EP.
pub const HASWELL_EP: Machine = Machine {
    name: "Haswell-EP",
    leaf1: [0x3_06f2, 0x40_0800, 0x7dfe_fbff, 0xbfeb_fbff],
    leaf7: [0x0, 0x3fbb, 0x0, 0x0],
    leaf_a: [0x730_0403, 0x0, 0x0, 0x603],
    leaf_1a: 0x0,
    msrs: &[
        (0x480, 0xda_0400_0000_0012),
        (0x481, 0xff_0000_0016),
        (0x482, 0xfff9_fffe_0401_e172),
        (0x483, 0x7f_ffff_0003_6dff),
        (0x484, 0xffff_0000_11ff),
        (0x485, 0x3004_81e5),
        (0x486, 0x8000_0021),
        (0x487, 0xffff_ffff),
        (0x488, 0x2000),
        (0x489, 0x17_67ff),
        (0x48a, 0x2a),
        (0x48b, 0x7fff_0000_0000),
        (0x48c, 0xf01_0633_4141),
        (0x48d, 0xff_0000_0016),
        (0x48e, 0xfff9_fffe_0400_6172),
        (0x48f, 0x7f_ffff_0003_6dfb),
        (0x490, 0xffff_0000_11fb),
    ],
};

/// Broadwell-E.
pub const BROADWELL_E: Machine = Machine {
    name: "Broadwell-E",
    leaf1: [0x4_06f1, 0x10_0800, 0x7ffe_fbbf, 0xbfeb_fbff],
    leaf7: [0x0, 0x21c_bfbb, 0x0, 0x0],
    leaf_a: [0x730_0403, 0x0, 0x0, 0x603],
    leaf_1a: 0x0,
    msrs: &[
        (0x480, 0xda_0400_0000_0012),
        (0x481, 0xff_0000_0016),
        (0x482, 0xfff9_fffe_0401_e172),
        (0x483, 0x7f_ffff_0003_6dff),
        (0x484, 0xffff_0000_11ff),
        (0x485, 0x3004_81e5),
        (0x486, 0x8000_0021),
        (0x487, 0xffff_ffff),
        (0x488, 0x2000),
        (0x489, 0x37_27ff),
        (0x48a, 0x2a),
        (0x48b, 0x5_3fff_0000_0000),
        (0x48c, 0xf01_0633_4141),
        (0x48d, 0xff_0000_0016),
        (0x48e, 0xfff9_fffe_0400_6172),
        (0x48f, 0x7f_ffff_0003_6dfb),
        (0x490, 0xffff_0000_11fb),
    ],
};

/// Skylake-X.
pub const SKYLAKE_X: Machine = Machine {
    name: "Skylake-X",
    leaf1: [0x5_0654, 0x20_0800, 0x7ffe_fbbf, 0xbfeb_fbff],
    leaf7: [0x0, 0xd39f_fffb, 0x0, 0x0],
    leaf_a: [0x730_0404, 0x0, 0x0, 0x603],
    leaf_1a: 0x0,
    msrs: &[
        (0x480, 0xda_0400_0000_0004),
        (0x481, 0xff_0000_0016),
        (0x482, 0xfff9_fffe_0401_e172),
        (0x483, 0x1ff_ffff_0003_6dff),
        (0x484, 0x3_ffff_0000_11ff),
        (0x485, 0x7004_c1e7),
        (0x486, 0x8000_0021),
        (0x487, 0xffff_ffff),
        (0x488, 0x2000),
        (0x489, 0x37_27ff),
        (0x48a, 0x2e),
        (0x48b, 0x25d_3fff_0000_0000),
        (0x48c, 0xf01_0673_4141),
        (0x48d, 0xff_0000_0016),
        (0x48e, 0xfff9_fffe_0400_6172),
        (0x48f, 0x1ff_ffff_0003_6dfb),
        (0x490, 0x3_ffff_0000_11fb),
    ],
};

/// Cascade Lake-SP.
pub const CASCADE_LAKE: Machine = Machine {
    name: "Cascade Lake-SP",
    leaf1: [0x5_0657, 0x20_0800, 0x7ffe_fbff, 0xbfeb_fbff],
    leaf7: [0x0, 0xd39f_fffb, 0x808, 0xbc00_0400],
    leaf_a: [0x730_0404, 0x0, 0x0, 0x603],
    leaf_1a: 0x0,
    msrs: &[
        (0x480, 0xda_0400_0000_0004),
        (0x481, 0xff_0000_0016),
        (0x482, 0xfff9_fffe_0401_e172),
        (0x483, 0x1ff_ffff_0003_6dff),
        (0x484, 0x3_ffff_0000_11ff),
        (0x485, 0x7004_c1e7),
        (0x486, 0x8000_0021),
        (0x487, 0xffff_ffff),
        (0x488, 0x2000),
        (0x489, 0x77_67ff),
        (0x48a, 0x2e),
        (0x48b, 0x25f_7fff_0000_0000),
        (0x48c, 0xf01_0673_4141),
        (0x48d, 0xff_0000_0016),
        (0x48e, 0xfff9_fffe_0400_6172),
        (0x48f, 0x1ff_ffff_0003_6dfb),
        (0x490, 0x3_ffff_0000_11fb),
    ],
};

/// Coffee Lake.
pub const COFFEE_LAKE: Machine = Machine {
    name: "Coffee Lake",
    leaf1: [0x9_06ec, 0x10_0800, 0x7ffa_fbff, 0xbfeb_fbff],
    leaf7: [0x0, 0x29c_6fbf, 0x4000_0000, 0xbc00_0000],
    leaf_a: [0x730_0804, 0x0, 0x0, 0x603],
    leaf_1a: 0x0,
    msrs: &[
        (0x480, 0xda_0400_0000_0004),
        (0x481, 0x7f_0000_0016),
        (0x482, 0xfff9_fffe_0401_e172),
        (0x483, 0x1ff_ffff_0003_6dff),
        (0x484, 0x3_ffff_0000_11ff),
        (0x485, 0x7004_c1e7),
        (0x486, 0x8000_0021),
        (0x487, 0xffff_ffff),
        (0x488, 0x2000),
        (0x489, 0x37_67ff),
        (0x48a, 0x2e),
        (0x48b, 0x5f_fcff_0000_0000),
        (0x48c, 0xf01_0673_4141),
        (0x48d, 0x7f_0000_0016),
        (0x48e, 0xfff9_fffe_0400_6172),
        (0x48f, 0x1ff_ffff_0003_6dfb),
        (0x490, 0x3_ffff_0000_11fb),
    ],
};

/// Ice Lake-SP.
pub const ICE_LAKE_SP: Machine = Machine {
    name: "Ice Lake-SP",
    leaf1: [0x6_06a6, 0x80_0800, 0x7ffe_fbff, 0xbfeb_fbff],
    leaf7: [0x0, 0xf3bf_bfff, 0x4041_7f4e, 0xbc04_0412],
    leaf_a: [0x830_0805, 0x0, 0xf, 0x8604],
    leaf_1a: 0x0,
    msrs: &[
        (0x480, 0xda_0500_0000_0013),
        (0x481, 0xff_0000_0016),
        (0x482, 0xfff9_fffe_0401_e172),
        (0x483, 0x37f_ffff_0003_6dff),
        (0x484, 0x6_ffff_0000_11ff),
        (0x485, 0x7004_c1e7),
        (0x486, 0x8000_0021),
        (0x487, 0xffff_ffff),
        (0x488, 0x2000),
        (0x489, 0x77_7fff),
        (0x48a, 0x2e),
        (0x48b, 0x4bdf_ffff_0000_0000),
        (0x48c, 0xf01_0673_41c1),
        (0x48d, 0xff_0000_0016),
        (0x48e, 0xfff9_fffe_0400_6172),
        (0x48f, 0x37f_ffff_0003_6dfb),
        (0x490, 0x6_ffff_0000_11fb),
    ],
};

/// Sapphire Rapids.
pub const SAPPHIRE_RAPIDS: Machine = Machine {
    name: "Sapphire Rapids",
    leaf1: [0x8_06f8, 0x80_0800, 0x7ffe_fbff, 0xbfeb_fbff],
    leaf7: [0x2, 0xf3bf_bffb, 0xbb41_7fee, 0xffdd_4430],
    leaf_a: [0x830_0805, 0x0, 0xf, 0x8604],
    leaf_1a: 0x0,
    msrs: &[
        (0x480, 0x3da_0500_0000_0013),
        (0x481, 0xff_0000_0016),
        (0x482, 0xfffb_fffe_0401_e172),
        (0x483, 0xff7f_ffff_0003_6dff),
        (0x484, 0x7e_ffff_0000_11ff),
        (0x485, 0x7004_c1e7),
        (0x486, 0x8000_0021),
        (0x487, 0xffff_ffff),
        (0x488, 0x2000),
        (0x489, 0x3f7_7fff),
        (0x48a, 0x2e),
        (0x48b, 0xcfff_3fff_0000_0000),
        (0x48c, 0x1_0f01_06f3_41c1),
        (0x48d, 0xff_0000_0016),
        (0x48e, 0xfffb_fffe_0400_6172),
        (0x48f, 0xff7f_ffff_0003_6dfb),
        (0x490, 0x7e_ffff_0000_11fb),
    ],
};

/// Emerald Rapids.
pub const EMERALD_RAPIDS: Machine = Machine {
    name: "Emerald Rapids",
    leaf1: [0xc_06f2, 0x80_0800, 0x7ffe_fbff, 0xbfeb_fbff],
    leaf7: [0x2, 0xf3bf_bfff, 0xfb41_7fee, 0xffdd_4432],
    leaf_a: [0x830_0805, 0x0, 0xf, 0x8604],
    leaf_1a: 0x0,
    msrs: &[
        (0x480, 0x3da_0500_0000_0013),
        (0x481, 0xff_0000_0016),
        (0x482, 0xfffb_fffe_0401_e172),
        (0x483, 0xff7f_ffff_0003_6dff),
        (0x484, 0x7e_ffff_0000_11ff),
        (0x485, 0x7004_c1e7),
        (0x486, 0x8000_0021),
        (0x487, 0xffff_ffff),
        (0x488, 0x2000),
        (0x489, 0x3f7_7fff),
        (0x48a, 0x2e),
        (0x48b, 0xcfff_ffff_0000_0000),
        (0x48c, 0x1_0f01_06f3_41c1),
        (0x48d, 0xff_0000_0016),
        (0x48e, 0xfffb_fffe_0400_6172),
        (0x48f, 0xff7f_ffff_0003_6dfb),
        (0x490, 0x7e_ffff_0000_11fb),
    ],
};

/// Granite Rapids.
pub const GRANITE_RAPIDS: Machine = Machine {
    name: "Granite Rapids",
    leaf1: [0xa_06d1, 0x80_0800, 0x7ffe_fbff, 0xbfeb_fbff],
    leaf7: [0x2, 0xf3bf_bffb, 0xbb41_7fee, 0xffdd_4430],
    leaf_a: [0x830_0805, 0x0, 0xf, 0x8604],
    leaf_1a: 0x4000_0002,
    msrs: &[
        (0x480, 0x3da_0500_0000_0013),
        (0x481, 0xff_0000_0016),
        (0x482, 0xfffb_fffe_0401_e172),
        (0x483, 0xff7f_ffff_0003_6dff),
        (0x484, 0x7e_ffff_0000_11ff),
        (0x485, 0x7004_c1e7),
        (0x486, 0x8000_0021),
        (0x487, 0xffff_ffff),
        (0x488, 0x2000),
        (0x489, 0x3f7_7fff),
        (0x48a, 0x2e),
        (0x48b, 0xcfff_7fff_0000_0000),
        (0x48c, 0x1_0f01_06f3_41c1),
        (0x48d, 0xff_0000_0016),
        (0x48e, 0xfffb_fffe_0400_6172),
        (0x48f, 0xff7f_ffff_0003_6dfb),
        (0x490, 0x7e_ffff_0000_11fb),
    ],
};

/// Raptor Lake, performance core of a hybrid.
pub const RAPTOR_LAKE_P_CORE: Machine = Machine {
    name: "Raptor Lake",
    leaf1: [0xb_0671, 0x80_0800, 0x7ffa_fbff, 0xbfeb_fbff],
    leaf7: [0x2, 0x239c_27eb, 0x98c0_27ac, 0xfc1c_c410],
    leaf_a: [0x730_0605, 0x0, 0x7, 0x8603],
    leaf_1a: 0x4000_0001,
    msrs: &[
        (0x480, 0x3da_0500_0000_0013),
        (0x481, 0xff_0000_0016),
        (0x482, 0xfffb_fffe_0401_e172),
        (0x483, 0xf77f_ffff_0003_6dff),
        (0x484, 0x76_ffff_0000_11ff),
        (0x485, 0x7004_c1e7),
        (0x486, 0x8000_0021),
        (0x487, 0xffff_ffff),
        (0x488, 0x2000),
        (0x489, 0x1ff_6fff),
        (0x48a, 0x2e),
        (0x48b, 0xf5d_7fff_0000_0000),
        (0x48c, 0x1_0f01_06f3_4141),
        (0x48d, 0xff_0000_0016),
        (0x48e, 0xfffb_fffe_0400_6172),
        (0x48f, 0xf77f_ffff_0003_6dfb),
        (0x490, 0x76_ffff_0000_11fb),
    ],
};

/// Avoton (Silvermont, Atom-class).
pub const AVOTON: Machine = Machine {
    name: "Avoton",
    leaf1: [0x4_06d8, 0x10_0800, 0x43d8_e3bf, 0xbfeb_fbff],
    leaf7: [0x0, 0x2282, 0x0, 0x0],
    leaf_a: [0x728_0203, 0x0, 0x0, 0x4503],
    leaf_1a: 0x0,
    msrs: &[
        (0x480, 0xda_0400_0000_0002),
        (0x481, 0x7f_0000_0016),
        (0x482, 0xfff9_fffe_0401_e172),
        (0x483, 0x7f_ffff_0003_6dff),
        (0x484, 0xffff_0000_11ff),
        (0x485, 0x4_81e6),
        (0x486, 0x8000_0021),
        (0x487, 0xffff_ffff),
        (0x488, 0x2000),
        (0x489, 0x10_27ff),
        (0x48a, 0x2e),
        (0x48b, 0x28ef_0000_0000),
        (0x48c, 0xf01_0611_4141),
        (0x48d, 0x7f_0000_0016),
        (0x48e, 0xfff9_fffe_0400_6172),
        (0x48f, 0x7f_ffff_0003_6dfb),
        (0x490, 0xffff_0000_11fb),
    ],
};

/// Denverton (Goldmont, Atom-class).
pub const DENVERTON: Machine = Machine {
    name: "Denverton",
    leaf1: [0x5_06f1, 0x20_0800, 0x4ff8_ebbf, 0xbfeb_fbff],
    leaf7: [0x0, 0x2294_e283, 0x0, 0x2c00_0000],
    leaf_a: [0x730_0404, 0x0, 0x0, 0x603],
    leaf_1a: 0x0,
    msrs: &[
        (0x480, 0xda_0400_0000_0011),
        (0x481, 0xff_0000_0016),
        (0x482, 0xfff9_fffe_0401_e172),
        (0x483, 0x1ff_ffff_0003_6dff),
        (0x484, 0x3_ffff_0000_11ff),
        (0x485, 0x6004_c1e7),
        (0x486, 0x8000_0021),
        (0x487, 0xffff_ffff),
        (0x488, 0x2000),
        (0x489, 0x35_27ff),
        (0x48a, 0x2e),
        (0x48b, 0x1d_6fff_0000_0000),
        (0x48c, 0xf01_0633_4141),
        (0x48d, 0xff_0000_0016),
        (0x48e, 0xfff9_fffe_0400_6172),
        (0x48f, 0x1ff_ffff_0003_6dfb),
        (0x490, 0x3_ffff_0000_11fb),
    ],
};

/// Alder Lake-N (Gracemont only, Atom-class).
pub const ALDER_LAKE_N: Machine = Machine {
    name: "Alder Lake-N",
    leaf1: [0xb_06e0, 0x80_0800, 0x7ffa_fbbf, 0xbfeb_fbff],
    leaf7: [0x2, 0x239c_a7eb, 0x98c0_07ac, 0xfc18_4410],
    leaf_a: [0x730_0605, 0x0, 0x7, 0x8603],
    leaf_1a: 0x2000_0001,
    msrs: &[
        (0x480, 0x3da_0500_0000_0013),
        (0x481, 0xff_0000_0016),
        (0x482, 0xfffb_fffe_0401_e172),
        (0x483, 0xf77f_ffff_0003_6dff),
        (0x484, 0x76_ffff_0000_11ff),
        (0x485, 0x7004_c1e7),
        (0x486, 0x8000_0021),
        (0x487, 0xffff_ffff),
        (0x488, 0x2000),
        (0x489, 0x1ff_2fff),
        (0x48a, 0x2e),
        (0x48b, 0x75d_7fff_0000_0000),
        (0x48c, 0xf01_06f3_4141),
        (0x48d, 0xff_0000_0016),
        (0x48e, 0xfffb_fffe_0400_6172),
        (0x48f, 0xf77f_ffff_0003_6dfb),
        (0x490, 0x76_ffff_0000_11fb),
    ],
};

/// Bochs 3.0, model corei7_skylake_x with the project's performance counters, as a kernel reads it there.
pub const BOCHS: Machine = Machine {
    name: "Bochs corei7_skylake_x",
    leaf1: [0x5_0654, 0x1_0800, 0x77fa_f22b, 0x1f8b_fbff],
    leaf7: [0x0, 0xd19f_27eb, 0x0, 0x0],
    leaf_a: [0x0730_0405, 0x58, 0x7, 0x8603],
    leaf_1a: 0x0,
    msrs: &[
        (0x480, 0xd8_1000_0000_002b),
        (0x481, 0xff_0000_0016),
        (0x482, 0xfff9_fffe_0401_e172),
        (0x483, 0x407f_ffff_0003_6dff),
        (0x484, 0xffff_0000_11ff),
        (0x485, 0x6004_01e0),
        (0x486, 0x8000_0021),
        (0x487, 0xffff_ffff),
        (0x488, 0x2000),
        (0x489, 0x37_27ff),
        (0x48a, 0x50),
        (0x48b, 0x257_7fff_0000_0000),
        (0x48c, 0xf01_0673_4141),
        (0x48d, 0xff_0000_0016),
        (0x48e, 0xfff9_fffe_0400_6172),
        (0x48f, 0x407f_ffff_0003_6dfb),
        (0x490, 0xffff_0000_11fb),
        (0x491, 0x1),
    ],
};

/// All of the above that a Lockstep host may be.
pub const SUITABLE: &[&Machine] = &[
    &BOCHS,
    &HASWELL_EP,
    &BROADWELL_E,
    &SKYLAKE_X,
    &CASCADE_LAKE,
    &COFFEE_LAKE,
    &ICE_LAKE_SP,
    &SAPPHIRE_RAPIDS,
    &EMERALD_RAPIDS,
    &GRANITE_RAPIDS,
    &RAPTOR_LAKE_P_CORE,
    &SANDY_BRIDGE_E,
    &GULFTOWN,
];

/// All of the above that are Atom-class.
pub const ATOMS: &[&Machine] = &[&AVOTON, &DENVERTON, &ALDER_LAKE_N];
