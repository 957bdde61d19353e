//! Random programs for the toy processor: loops, repeated instructions, shadows, faults, traps, devices.

use replay::seed::Seed;

/// Words of memory.
pub const WORDS: u64 = 256;
/// Words that the guest and its devices write; those behind are only read.
pub const WRITABLE: u64 = 192;

/// Vectors: a debug exception, an invalid opcode, a software interrupt; devices from here on.
pub const DEBUG: u8 = 1;
pub const INVALID: u8 = 6;
pub const SOFTWARE: u8 = 0x18;
pub const DEVICES: u8 = 0x20;
/// How many devices interrupt.
pub const LINES: u8 = 4;

/// An instruction. Registers are numbered as the encoding numbers them; 1 is RCX, 7 is RDI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Mix(usize, usize, u64),
    /// Reads the word that the second register points to.
    Load(usize, usize),
    /// Writes it.
    Store(usize, usize),
    Set(usize, u64),
    /// Decrements and jumps unless zero.
    Loop(usize, usize),
    JumpIfOdd(usize, usize),
    Jump(usize),
    /// RCX times: a word is written, RDI goes on. Ends early at a word that is a multiple of the number, if it is not 0.
    Rep(u64),
    Sti,
    Cli,
    MovSs,
    /// Waits for an interrupt.
    Halt,
    /// Reads a device.
    In(usize, u8),
    /// Reads one RCX times, into memory: each iteration exits.
    RepIn(u8),
    /// Writes one.
    Out(usize, u8),
    Time(usize),
    Random(usize),
    Int,
    Invalid,
    TrapOn,
    TrapOff,
    /// Sets the guest's own breakpoint.
    Watch(usize),
    Unwatch,
    /// Moves the return address behind the instruction that faulted.
    SkipFaulting,
    /// Sets RF in the frame.
    FrameRf,
    /// Notes the interrupted place: what a guest can see of the point of an interrupt.
    Note,
    Iret,
}

/// Code, and where each vector's handler begins.
#[derive(Clone, Debug)]
pub struct Program {
    pub code: Vec<Op>,
    handlers: Vec<(u8, usize)>,
}

impl Program {
    /// Where the handler of a vector begins.
    pub fn handler(&self, vector: u8) -> usize {
        self.handlers.iter().find(|(known, _)| *known == vector).map_or(0, |(_, at)| *at)
    }

    /// The program that a seed names.
    pub fn random(rng: &mut Seed) -> Self {
        let mut code = vec![Op::Sti];
        // A timer for everybody, and something to wait for.
        code.extend([Op::Set(0, rng.between(300, 9000)), Op::Out(0, 0)]);
        let begin = code.len();
        for _ in 0..rng.between(2, 6) {
            segment(&mut code, rng);
        }
        code.extend([Op::Time(rng.below(16) as usize), Op::Jump(begin)]);
        let mut handlers = Vec::new();
        let mut handler = |vector: u8, body: &[Op]| {
            handlers.push((vector, code.len()));
            code.extend_from_slice(body);
        };
        handler(DEBUG, &[Op::Note, Op::FrameRf, Op::Iret]);
        handler(INVALID, &[Op::SkipFaulting, Op::Note, Op::Iret]);
        handler(SOFTWARE, &[Op::Mix(2, 1, 9), Op::Iret]);
        for line in 0..LINES {
            let vector = DEVICES + line;
            match rng.below(4) {
                0 => handler(vector, &[Op::Note, Op::Iret]),
                1 => handler(vector, &[Op::Note, Op::In(10, line), Op::Out(10, line), Op::Iret]),
                2 => {
                    handler(vector, &[Op::Note, Op::Load(11, 12), Op::Store(11, 12), Op::Time(11), Op::Iret])
                }
                _ => handler(vector, &[Op::Note, Op::Int, Op::Sti, Op::Mix(13, 1, 5), Op::Cli, Op::Iret]),
            }
        }
        Self { code, handlers }
    }
}

/// A loop around random instructions.
fn segment(code: &mut Vec<Op>, rng: &mut Seed) {
    let counter = 3 + 2 * rng.below(2) as usize;
    code.push(Op::Set(counter, rng.between(1, 60)));
    let again = code.len();
    if rng.one_in(4) {
        // A loop with nothing in it but itself.
        let inner = 14;
        code.push(Op::Set(inner, rng.between(1, 300)));
        let here = code.len();
        code.push(Op::Loop(inner, here));
    }
    for _ in 0..rng.between(1, 8) {
        instruction(code, rng, again);
    }
    code.extend([Op::TrapOff, Op::Loop(counter, again)]);
}

fn instruction(code: &mut Vec<Op>, rng: &mut Seed, again: usize) {
    // Not the counters of loops, not RCX and RDI.
    const FREE: [usize; 9] = [0, 2, 6, 8, 9, 10, 11, 12, 13];
    let a = FREE[rng.below(9) as usize];
    let b = FREE[rng.below(9) as usize];
    let here = code.len();
    match rng.below(29) {
        0..=4 => code.push(Op::Mix(a, b, rng.next())),
        5 | 6 => code.push(Op::Load(a, b)),
        7 | 8 => code.push(Op::Store(a, b)),
        9 => code.push(Op::JumpIfOdd(a, here + 2)),
        10..=13 => {
            let early = [0, 0, 3, 17][rng.below(4) as usize];
            let times = [0, 1, 2, 40][rng.below(4) as usize] + rng.below(20);
            code.extend([Op::Set(1, times), Op::Rep(early)]);
        }
        14 => code.extend([Op::Cli, Op::Mix(a, b, 1), Op::Mix(b, a, 2), Op::Sti]),
        15 => code.extend([Op::Cli, Op::Sti, Op::Cli, Op::Sti]),
        16 => code.extend([Op::MovSs, Op::Mix(a, b, 3), Op::MovSs, Op::Rep(0)]),
        17 => code.extend([Op::Sti, Op::Halt]),
        18 => code.extend([Op::Cli, Op::MovSs, Op::Sti, Op::Halt]),
        19 => code.push(Op::In(a, rng.below(u64::from(LINES)) as u8)),
        20 => code.push(Op::Out(a, rng.below(u64::from(LINES)) as u8)),
        21 => code.push(Op::Time(a)),
        22 => code.push(Op::Random(a)),
        23 => code.push(Op::Int),
        24 => code.push(Op::Invalid),
        25 => code.push(Op::TrapOn),
        26 => code.push(Op::Watch(again)),
        27 => code.extend([Op::Set(1, rng.below(6)), Op::RepIn(rng.below(u64::from(LINES)) as u8)]),
        _ => code.push(Op::Unwatch),
    }
    // What a jump may skip to is an instruction.
    code.push(Op::Mix(0, a, 7));
}
