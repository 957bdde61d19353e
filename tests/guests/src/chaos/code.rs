//! Random machine code: what a hostile guest executes. Pure bytes; [`crate::wild`] runs them.

use super::random::Random;
use crate::wild::{CODE, CODE_BYTES, DATA, Registers, STACK};

/// What an episode is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Theme {
    /// IN, OUT, INS and OUTS.
    #[default]
    Ports,
    /// Device memory by every kind of instruction.
    Memory,
    /// RDMSR and WRMSR.
    Msrs,
    /// CR, DR, XCR, flags.
    Registers,
    /// Descriptor tables, selectors, gates, far returns.
    Tables,
    /// VMX and what else exits or is hidden.
    Exits,
    /// Code that changes the code ahead of it, across pages.
    SelfModifying,
    /// Random bytes.
    Bytes,
    /// Interrupt storms.
    Storm,
    /// Drivers that break virtio's rules.
    Rings,
    /// Without long mode; ends the machine's life until its next reset.
    Modes,
    /// A bit of all.
    Mixed,
}

/// All themes by their names.
pub const THEMES: [(&str, Theme); 12] = [
    ("ports", Theme::Ports),
    ("memory", Theme::Memory),
    ("msrs", Theme::Msrs),
    ("registers", Theme::Registers),
    ("tables", Theme::Tables),
    ("exits", Theme::Exits),
    ("smc", Theme::SelfModifying),
    ("bytes", Theme::Bytes),
    ("storm", Theme::Storm),
    ("rings", Theme::Rings),
    ("modes", Theme::Modes),
    ("mixed", Theme::Mixed),
];

impl Theme {
    /// Its name.
    pub fn name(self) -> &'static str {
        THEMES.iter().find(|(_, theme)| *theme == self).map_or("", |(name, _)| name)
    }
}

/// Where the data of wild code lies.
pub const fn scratch() -> u64 {
    DATA
}

/// Code being written.
#[derive(Debug)]
pub struct Code {
    bytes: [u8; CODE_BYTES],
    length: usize,
}

impl Default for Code {
    fn default() -> Self {
        Self { bytes: [0xcc; CODE_BYTES], length: 0 }
    }
}

/// Bytes that are kept free for the end.
const ENDING: usize = 64;

impl Code {
    /// What has been written.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn put(&mut self, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(self.length..self.length + bytes.len()) {
            place.copy_from_slice(bytes);
            self.length += bytes.len();
        }
    }

    fn full(&self) -> bool {
        self.length + ENDING + 64 > CODE_BYTES
    }

    /// MOV r64, imm64; `register` 0 to 7.
    fn load(&mut self, register: u8, value: u64) {
        self.put(&[0x48, 0xb8 + (register & 7)]);
        self.put(&value.to_le_bytes());
    }

    /// The jump back, by way of RAX.
    fn finish(&mut self) {
        self.load(0, crate::wild::end());
        self.put(&[0xff, 0xe0]);
    }
}

const RAX: u8 = 0;
const RCX: u8 = 1;
const RDX: u8 = 2;
const RBX: u8 = 3;
const RSI: u8 = 6;
const RDI: u8 = 7;

/// Random code of this theme, with its end. Code in a loop runs a bounded number of rounds.
pub fn generate(random: &mut Random, theme: Theme, code: &mut Code) {
    let steps = 4 + random.below(60);
    for _ in 0..steps {
        if code.full() {
            break;
        }
        step(random, theme, code);
    }
    code.finish();
}

/// Random registers; RSP is sometimes a stack.
pub fn registers(random: &mut Random) -> Registers {
    let mut registers: Registers = core::array::from_fn(|_| match random.below(12) {
        0 => random.address(),
        1..=3 => scratch() + random.below(0x7000),
        _ => random.value(),
    });
    if !random.one_in(8) {
        registers[4] = STACK - 8 * random.below(64);
    }
    registers
}

fn step(random: &mut Random, theme: Theme, code: &mut Code) {
    match theme {
        Theme::Ports => ports(random, code),
        Theme::Memory => memory(random, code),
        Theme::Msrs => msrs(random, code),
        Theme::Registers => control(random, code),
        Theme::Tables => tables(random, code),
        Theme::Exits => exits(random, code),
        Theme::SelfModifying => self_modifying(random, code),
        Theme::Bytes => noise(random, code),
        Theme::Storm => storm(random, code),
        Theme::Rings | Theme::Modes | Theme::Mixed => {
            const ALL: [Theme; 9] = [
                Theme::Ports,
                Theme::Memory,
                Theme::Msrs,
                Theme::Registers,
                Theme::Tables,
                Theme::Exits,
                Theme::SelfModifying,
                Theme::Bytes,
                Theme::Storm,
            ];
            let theme = random.pick(&ALL);
            step(random, theme, code);
        }
    }
}

fn ports(random: &mut Random, code: &mut Code) {
    code.load(RDX, u64::from(random.port()) | random.below(2) << 40);
    code.load(RAX, random.value());
    if random.one_in(3) {
        // INS, OUTS: in either direction, with counts up to anything.
        code.load(RCX, if random.one_in(4) { random.value() } else { random.below(64) });
        code.load(RSI, random.address());
        code.load(RDI, random.address());
        code.put(&[random.pick(&[0xfc, 0xfc, 0xfd])]);
        prefixes(random, code);
        code.put(&[0x6c + random.below(4) as u8]);
    } else {
        if random.one_in(3) {
            code.put(&[0x66]);
        }
        match random.below(4) {
            0 => code.put(&[0xe4 + random.below(4) as u8, random.bits() as u8]),
            _ => code.put(&[0xec + random.below(4) as u8]),
        }
    }
}

fn prefixes(random: &mut Random, code: &mut Code) {
    for prefix in [0x66, 0x67, 0xf3, 0xf2, 0x64, 0x48] {
        if random.one_in(if prefix == 0xf3 { 2 } else { 8 }) {
            code.put(&[prefix]);
        }
    }
}

/// Instructions with a memory operand at [RDI], after which ModRM and what follows is put.
const OPERANDS: [(&[u8], u8, usize); 44] = [
    (&[0x8b], 0x07, 0),
    (&[0x89], 0x07, 0),
    (&[0x8a], 0x07, 0),
    (&[0x88], 0x07, 0),
    (&[0x48, 0x8b], 0x07, 0),
    (&[0x48, 0x89], 0x07, 0),
    (&[0x66, 0x89], 0x07, 0),
    (&[0xc7], 0x07, 4),
    (&[0xc6], 0x07, 1),
    (&[0x0f, 0xb6], 0x07, 0),
    (&[0x0f, 0xbf], 0x07, 0),
    (&[0x48, 0x63], 0x07, 0),
    (&[0x01], 0x07, 0),
    (&[0x0b], 0x07, 0),
    (&[0x81], 0x0f, 4),
    (&[0x83], 0x27, 1),
    (&[0xf7], 0x07, 4),
    (&[0xf7], 0x37, 0),
    (&[0xff], 0x07, 0),
    (&[0xff], 0x37, 0),
    (&[0xff], 0x17, 0),
    (&[0xff], 0x27, 0),
    (&[0x8f], 0x07, 0),
    (&[0x87], 0x07, 0),
    (&[0xf0, 0x0f, 0xc1], 0x07, 0),
    (&[0xf0, 0x0f, 0xb1], 0x07, 0),
    (&[0x0f, 0xc7], 0x0f, 0),
    (&[0x48, 0x0f, 0xc7], 0x0f, 0),
    (&[0x0f, 0xab], 0x07, 0),
    (&[0x0f, 0xba], 0x2f, 1),
    (&[0xd3], 0x27, 0),
    (&[0x0f, 0x10], 0x07, 0),
    (&[0x66, 0x0f, 0x7f], 0x07, 0),
    (&[0xc5, 0xfc, 0x10], 0x07, 0),
    (&[0xdf], 0x2f, 0),
    (&[0x0f, 0xae], 0x07, 0),
    (&[0x0f, 0xae], 0x27, 0),
    (&[0x0f, 0x01], 0x17, 0),
    (&[0x0f, 0x01], 0x07, 0),
    (&[0x0f, 0x01], 0x3f, 0),
    (&[0x0f, 0x18], 0x0f, 0),
    (&[0x0f, 0x38, 0xf0], 0x07, 0),
    (&[0x0f, 0xc3], 0x07, 0),
    (&[0x8e], 0x1f, 0),
];

fn memory(random: &mut Random, code: &mut Code) {
    code.load(RDI, random.address());
    code.load(RAX, random.value());
    if random.one_in(4) {
        // MOVS, CMPS, STOS, LODS, SCAS.
        code.load(RCX, if random.one_in(4) { random.value() } else { random.below(600) });
        code.load(RSI, random.address());
        code.put(&[random.pick(&[0xfc, 0xfc, 0xfd])]);
        prefixes(random, code);
        code.put(&[random.pick(&[0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf])]);
        return;
    }
    let (opcode, modrm, immediate) = OPERANDS[random.below(OPERANDS.len() as u64) as usize];
    code.put(opcode);
    // Another register now and then; with a displacement now and then.
    let modrm = if random.one_in(8) { modrm ^ (random.below(8) as u8) << 3 } else { modrm };
    match random.below(4) {
        0 => {
            code.put(&[modrm | 0x80]);
            code.put(&(random.bits() as u32 & 0x1fff).to_le_bytes());
        }
        _ => code.put(&[modrm]),
    }
    code.put(&random.bits().to_le_bytes()[..immediate]);
}

fn msrs(random: &mut Random, code: &mut Code) {
    const KNOWN: [u32; 34] = [
        0x10,
        0x1b,
        0x3a,
        0x3b,
        0x79,
        0x8b,
        0xfe,
        0x174,
        0x175,
        0x176,
        0x179,
        0x17a,
        0x1a0,
        0x1d9,
        0x200,
        0x20f,
        0x250,
        0x268,
        0x277,
        0x2ff,
        0x38d,
        0x38f,
        0x480,
        0x6e0,
        0x802,
        0x80b,
        0x830,
        0xc000_0080,
        0xc000_0081,
        0xc000_0082,
        0xc000_0084,
        0xc000_0100,
        0xc000_0101,
        0xc000_0103,
    ];
    let number = match random.below(6) {
        0 => random.bits() as u32,
        1 => random.below(0x2000) as u32,
        2 => 0xc000_0000 | random.below(0x2000) as u32,
        3 => 0x800 + random.below(0x40) as u32,
        _ => random.pick(&KNOWN),
    };
    code.load(RCX, number.into());
    let value = random.value();
    code.load(RAX, value);
    code.load(RDX, if random.one_in(2) { value >> 32 } else { 0 });
    code.put(random.pick(&[&[0x0f, 0x30][..], &[0x0f, 0x30], &[0x0f, 0x32], &[0x0f, 0x33], &[0x0f, 0x31]]));
}

fn control(random: &mut Random, code: &mut Code) {
    let number = random.below(8) as u8;
    match random.below(12) {
        // MOV from and to CRn; one bit of what it was, or anything.
        0..=4 => {
            let number = random.pick(&[0, 0, 2, 3, 4, 4, 8, number]);
            let rex = if number == 8 { 0x44 } else { 0x40 };
            let modrm = 0xc0 | (number & 7) << 3;
            code.put(&[rex, 0x0f, 0x20, modrm]);
            match random.below(3) {
                0 => code.load(RAX, random.value()),
                1 => code.put(&[0x48, 0x0f, 0xba, 0xf8, random.below(64) as u8]),
                _ => code.put(&[0x48, 0x0f, 0xba, 0xe8, random.below(24) as u8]),
            }
            code.put(&[rex, 0x0f, 0x22, modrm]);
        }
        5 | 6 => {
            code.load(RAX, if random.one_in(2) { random.value() } else { random.address() });
            code.put(&[0x0f, random.pick(&[0x21, 0x23, 0x23]), 0xc0 | number << 3]);
        }
        // XSETBV, XGETBV.
        7 => {
            code.load(RCX, random.below(3));
            code.load(RAX, random.pick(&[1, 3, 7, 0xe7, 0, 2, 4]) | random.value() & !0xff & random.value());
            code.load(RDX, 0);
            code.put(&[0x0f, 0x01, random.pick(&[0xd1, 0xd0])]);
        }
        8 => code.put(&[0x0f, 0x01, random.pick(&[0xf0, 0xe0])]),
        9 => code.put(&[0x0f, 0x06]),
        // PUSHFQ; change a bit; POPFQ: TF, IF, IOPL, NT, RF, AC, ID.
        10 => {
            code.put(&[0x9c, 0x0f, 0xba, 0x3c, 0x24]);
            code.put(&[random.pick(&[8, 9, 10, 12, 13, 14, 16, 17, 18, 19, 20, 21]), 0x9d, 0x90]);
        }
        _ => code.put(random.pick(&[
            &[0x8e, 0xd0][..],
            &[0xfb],
            &[0xfa],
            &[0xfb, 0xf4],
            &[0xcc],
            &[0xf1],
            &[0x90],
        ])),
    }
}

fn tables(random: &mut Random, code: &mut Code) {
    let selector =
        random.pick(&[0, 3, 8, 0x10, 0x18, 0x1b, 0x20, 0x23, 0x28, 0x30, 0x33, 0x38, 0x40, 0xfff8, 0xffff]);
    code.load(RBX, scratch() + 8 * random.below(64));
    code.load(RAX, selector);
    match random.below(10) {
        // LGDT, LIDT, SGDT, SIDT, LMSW, INVLPG of [RBX]; LLDT, LTR, SLDT, STR, VERR, VERW.
        0 => code.put(&[0x0f, 0x01, 0x03 | (random.below(8) as u8) << 3]),
        1 => code.put(&[0x0f, 0x00, 0xc0 | (random.below(6) as u8) << 3]),
        2 => code.put(&[0x8e, 0xc0 | (random.below(6) as u8) << 3]),
        3 => code.put(&[0xcd, random.bits() as u8]),
        // A frame from random values, then IRETQ or RETFQ.
        4 | 5 => {
            let frame = [
                random.pick(&[0, 0x10, 0x23, selector]),
                random.address(),
                if random.one_in(2) { random.below(1 << 22) } else { random.value() },
                random.pick(&[8, 8, 0x1b, 0x28, selector]),
                if random.one_in(2) { CODE + random.below(0x2000) } else { random.address() },
            ];
            for value in frame {
                code.load(RDX, value);
                code.put(&[0x52]);
            }
            code.put(random.pick(&[&[0x48, 0xcf][..], &[0x48, 0xcb], &[0xcf], &[0xcb], &[0x66, 0xcf]]));
        }
        6 => code.put(random.pick(&[
            &[0x0f, 0x05][..],
            &[0x48, 0x0f, 0x07],
            &[0x0f, 0x34],
            &[0x48, 0x0f, 0x35],
            &[0x0f, 0x01, 0xf8],
        ])),
        7 => {
            // A descriptor of random type into the GDT that LGDT [RBX] may find.
            code.load(RDX, random.value() & !0x0000_ff00_0000_0000 | (0x80 | random.below(128)) << 40);
            code.put(&[0x48, 0x89, 0x13]);
        }
        8 => code.put(&[0xff, random.pick(&[0x2b, 0x1b])]),
        _ => code.put(&[0x48, 0x0f, random.pick(&[0xb2, 0xb4, 0xb5]), 0x03]),
    }
}

fn exits(random: &mut Random, code: &mut Code) {
    code.load(RBX, random.address());
    code.load(RAX, random.value());
    code.load(RCX, if random.one_in(2) { random.below(32) } else { random.value() });
    const ONE_BYTE: [&[u8]; 34] = [
        &[0x0f, 0xa2],
        &[0x0f, 0x01, 0xc1],
        &[0x0f, 0x01, 0xc2],
        &[0x0f, 0x01, 0xc3],
        &[0x0f, 0x01, 0xc4],
        &[0x0f, 0x01, 0xd4],
        &[0x0f, 0xc7, 0x33],
        &[0x66, 0x0f, 0xc7, 0x33],
        &[0xf3, 0x0f, 0xc7, 0x33],
        &[0x0f, 0xc7, 0x3b],
        &[0x0f, 0x78, 0xc3],
        &[0x0f, 0x79, 0xc3],
        &[0x66, 0x0f, 0x38, 0x80, 0x03],
        &[0x66, 0x0f, 0x38, 0x81, 0x03],
        &[0x66, 0x0f, 0x38, 0x82, 0x03],
        &[0x0f, 0x01, 0xc8],
        &[0x0f, 0x01, 0xc9],
        &[0x0f, 0xaa],
        &[0x0f, 0x37],
        &[0x0f, 0x08],
        &[0x0f, 0x09],
        &[0xf3, 0x90],
        &[0x0f, 0xc7, 0xf0],
        &[0x48, 0x0f, 0xc7, 0xf8],
        &[0x0f, 0x31],
        &[0x0f, 0x01, 0xf9],
        &[0x0f, 0x33],
        &[0x0f, 0x01, 0xcf],
        &[0x0f, 0x01, 0xc0],
        &[0x0f, 0xc7, 0x2b],
        &[0x0f, 0xc7, 0x1b],
        &[0xf3, 0x0f, 0xae, 0xf3],
        &[0x66, 0x0f, 0xae, 0xf3],
        &[0x0f, 0x01, 0xd5],
    ];
    match random.below(24) {
        0 => code.put(&[0xf4]),
        1 => code.put(&[0xfb, 0xf4]),
        _ => code.put(random.pick(&ONE_BYTE)),
    }
}

fn self_modifying(random: &mut Random, code: &mut Code) {
    // A few bytes into the code ahead, or over the page's end; what was prefetched must not be executed.
    let ahead = match random.below(3) {
        0 => CODE + 0x1000 - random.below(16),
        _ => CODE + code.length as u64 + 16 + random.below(64),
    };
    code.load(RDI, ahead);
    let harmless = [0x90, 0x90, 0xf8, 0xfc, 0xf5, 0x50, 0x58];
    let bytes =
        core::array::from_fn(|_| if random.one_in(6) { random.bits() as u8 } else { random.pick(&harmless) });
    code.load(RAX, u64::from_le_bytes(bytes));
    code.put(random.pick(&[
        &[0x48, 0x89, 0x07][..],
        &[0x88, 0x07],
        &[0x48, 0xab],
        &[0xf0, 0x48, 0x87, 0x07],
    ]));
    if random.one_in(8) {
        let target = (CODE + 0x1000 - 8) as i64 - (CODE as i64 + code.length as i64 + 5);
        code.put(&[0xe9]);
        code.put(&(target as i32).to_le_bytes());
    }
}

fn noise(random: &mut Random, code: &mut Code) {
    for _ in 0..1 + random.below(6) {
        code.put(&random.bits().to_le_bytes()[..1 + random.below(8) as usize % 8]);
    }
}

/// Interrupts without an end: to itself by the local APIC, from its timer, from the PIT, as NMIs.
fn storm(random: &mut Random, code: &mut Code) {
    let any = random.below(256);
    let vector = random.pick(&[0x20, 0x31, 0x80, 0xfe, 0xff, 0x10, 0x02, any]);
    let mut apic = |register: u64, value: u64| {
        code.load(RDI, 0xfee0_0000 + register);
        code.put(&[0xc7, 0x07]);
        code.put(&(value as u32).to_le_bytes());
    };
    match random.below(7) {
        0 | 1 => apic(0x300, 1 << 18 | 1 << 14 | vector | random.pick(&[0, 0, 0x400, 0x500, 0x600, 0x100])),
        2 => {
            apic(0x3e0, random.below(16));
            apic(0x320, 0x20000 | vector);
            apic(0x380, random.pick(&[1, 10, 100, 1000, 0xffff_ffff]));
        }
        3 => {
            apic(0x320, 0x40000 | vector);
            code.load(RCX, 0x6e0);
            code.load(RAX, random.value());
            code.load(RDX, 0);
            code.put(&[0x0f, 0x30]);
        }
        4 => {
            // PIT, mode 2, a short period; PIC with everything unmasked.
            for (port, value) in
                [(0x43, 0x34), (0x40, random.below(64) as u8), (0x40, 0), (0x21, 0), (0xa1, 0)]
            {
                code.put(&[0xb0, value, 0xe6, port]);
            }
        }
        5 => {
            // An I/O APIC pin with anything behind it: level triggered, lowest priority, SMI, NMI, INIT, ExtINT.
            code.load(RDI, 0xfec0_0000);
            code.put(&[0xc7, 0x07]);
            code.put(&(0x10 + 2 * random.below(24) as u32).to_le_bytes());
            code.put(&[0xc7, 0x47, 0x10]);
            code.put(&((random.bits() as u32 & 0x1_ff00) | vector as u32).to_le_bytes());
        }
        _ => apic(random.pick(&[0x80, 0xd0, 0xe0, 0xf0, 0x350, 0x360, 0x370]), random.value()),
    }
    code.put(&[0xfb]);
    // A bounded loop that lets them in, or a HLT.
    match random.below(4) {
        0 => code.put(&[0xf4]),
        _ => code.put(&[0xb9, 0xff, 0, 0, 0, 0xff, 0xc9, 0x75, 0xfc]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_theme_writes_code_that_fits_and_differs_by_seed() {
        for (name, theme) in THEMES {
            let make = |seed| {
                let mut code = Code::default();
                generate(&mut Random::new(seed, 0), theme, &mut code);
                code
            };
            for seed in 0..200 {
                let (once, again) = (make(seed), make(seed));
                assert_eq!(once.bytes(), again.bytes(), "{name}");
                // The end is whole.
                assert_eq!(&once.bytes()[once.bytes().len() - 2..], &[0xff, 0xe0], "{name} {seed}");
            }
            assert_ne!(make(1).bytes(), make(2).bytes(), "{name}");
            assert_eq!(theme.name(), name);
        }
    }
}
