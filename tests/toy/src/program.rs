//! Random programs for the toy processor: loops, repeated instructions, shadows, faults, traps, devices.

use replay::seed::Seed;

/// Words of memory.
pub const WORDS: u64 = 256;
/// Words that the guest and its devices write; those behind are only read.
pub const WRITABLE: u64 = 192;

/// The vector of a debug exception.
pub const DEBUG: u8 = 1;
/// An invalid opcode.
pub const INVALID: u8 = 6;
/// A software interrupt.
pub const SOFTWARE: u8 = 0x18;
/// Devices, from here on.
pub const DEVICES: u8 = 0x20;
/// How many devices interrupt.
pub const LINES: u8 = 4;

/// An instruction. Registers are numbered as the encoding numbers them; 1 is RCX, 7 is RDI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Computes with two registers.
    Mix(usize, usize, u64),
    /// Reads the word that the second register points to.
    Load(usize, usize),
    /// Writes it.
    Store(usize, usize),
    /// Sets a register.
    Set(usize, u64),
    /// Decrements and jumps unless zero.
    Loop(usize, usize),
    /// Jumps if the register is odd.
    JumpIfOdd(usize, usize),
    /// Jumps.
    Jump(usize),
    /// RCX times: a word is written, RDI goes on. Ends early at a word that is a multiple of the number, if it is not 0.
    Rep(u64),
    /// Lets interrupts in.
    Sti,
    /// Keeps them out.
    Cli,
    /// Holds every event back for an instruction.
    MovSs,
    /// Waits for an interrupt.
    Halt,
    /// Reads a device.
    In(usize, u8),
    /// Reads one RCX times, into memory: each iteration exits.
    RepIn(u8),
    /// Writes one.
    Out(usize, u8),
    /// Reads the clock.
    Time(usize),
    /// Reads a random number.
    Random(usize),
    /// A software interrupt.
    Int,
    /// Faults.
    Invalid,
    /// Single steps from here on.
    TrapOn,
    /// No more single steps.
    TrapOff,
    /// Sets the guest's own breakpoint.
    Watch(usize),
    /// Clears it.
    Unwatch,
    /// Moves the return address behind the instruction that faulted.
    SkipFaulting,
    /// Sets RF in the frame.
    FrameRf,
    /// Notes the interrupted place: what a guest can see of the point of an interrupt.
    Note,
    /// Returns from a handler.
    Iret,
}

/// How long loops are at most.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Iterations of a loop around random instructions.
    pub outer: u64,
    /// Iterations of a loop with nothing in it.
    pub inner: u64,
    /// Iterations of a repeated instruction, and twenty more.
    pub rep: u64,
    /// A program may read the time into RCX, and repeat an instruction so often.
    pub wild: bool,
}

/// Long loops.
pub const LONG: Size = Size { outer: 60, inner: 300, rep: 40, wild: true };
/// Short ones.
pub const SHORT: Size = Size { outer: 6, inner: 40, rep: 5, wild: false };

/// Code, and where each vector's handler begins.
#[derive(Clone, Debug)]
pub struct Program {
    /// The instructions.
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
        Self::sized(rng, &LONG)
    }

    /// A program with loops of this size.
    pub fn sized(rng: &mut Seed, size: &Size) -> Self {
        let mut code = vec![Op::Sti];
        // A timer for everybody, and something to wait for.
        code.extend([Op::Set(0, rng.between(300, 9000)), Op::Out(0, 0)]);
        let begin = code.len();
        for _ in 0..rng.between(2, 6) {
            segment(&mut code, rng, size);
        }
        let time = if size.wild { rng.below(16) as usize } else { FREE[rng.below(9) as usize] };
        // Says something, once around.
        code.extend([Op::Time(time), Op::Out(15, LINES - 1), Op::Jump(begin)]);
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

/// Not the counters of loops, not RCX and RDI.
const FREE: [usize; 9] = [0, 2, 6, 8, 9, 10, 11, 12, 13];

/// A loop around random instructions.
fn segment(code: &mut Vec<Op>, rng: &mut Seed, size: &Size) {
    let counter = 3 + 2 * rng.below(2) as usize;
    code.push(Op::Set(counter, rng.between(1, size.outer)));
    let again = code.len();
    if rng.one_in(4) {
        // A loop with nothing in it but itself.
        let inner = 14;
        code.push(Op::Set(inner, rng.between(1, size.inner)));
        let here = code.len();
        code.push(Op::Loop(inner, here));
    }
    for _ in 0..rng.between(1, 8) {
        instruction(code, rng, again, size);
    }
    code.extend([Op::TrapOff, Op::Loop(counter, again)]);
}

fn instruction(code: &mut Vec<Op>, rng: &mut Seed, again: usize, size: &Size) {
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
            let times = [0, 1, 2, size.rep][rng.below(4) as usize] + rng.below(20);
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
