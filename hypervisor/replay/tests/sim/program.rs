//! Programs of the simulated processor: the proof's stubs, instruction for instruction.

use std::collections::HashMap;

use replay::proof::Stub;

/// A condition of a conditional branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Always,
    Never,
    RbxNonZero,
    RbxEven,
    R12NonZero,
}

/// One instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Mixes registers.
    Plain,
    /// Mixes registers and touches data page (rbx % pages).
    Memory,
    DecRbx,
    DecR12,
    SetR12,
    Branch(When, usize),
    /// Indirect jump: to the first while RBX is not zero, else to the second.
    Computed(usize, usize),
    Call(usize),
    Return,
    LeaRcx,
    Rcx(u64),
    /// String instruction that ends early after so many iterations.
    Rep(u64),
    /// String instruction whose every so many-th place is a page that is not there, again and again.
    RepTouch(u64),
    Int(u8),
    /// Raises a vector as a fault.
    Fault(u8),
    /// Faults with vector 14 while the page is not present.
    Touch,
    MapPage,
    UnmapPage,
    /// Adds one instruction to the return address.
    SkipFaulting,
    /// Sets RF in the frame.
    FrameRf,
    Iret,
    Emulated,
    BreakpointOn(usize),
    BreakpointOff,
    Sti,
    Cli,
    MovSs,
    TrapOn,
    TrapOff,
    Halt,
    VmCall,
}

/// A program: code and where each vector's handler is.
#[derive(Clone, Debug, Default)]
pub struct Program {
    pub code: Vec<Op>,
    pub handlers: HashMap<u8, usize>,
}

struct Assembler {
    code: Vec<Op>,
    labels: HashMap<&'static str, usize>,
    fixups: Vec<(usize, &'static str, Option<&'static str>)>,
}

impl Assembler {
    fn new() -> Self {
        Self { code: Vec::new(), labels: HashMap::new(), fixups: Vec::new() }
    }

    fn label(&mut self, name: &'static str) -> &mut Self {
        self.labels.insert(name, self.code.len());
        self
    }

    fn ops(&mut self, ops: &[Op]) -> &mut Self {
        self.code.extend_from_slice(ops);
        self
    }

    fn plain(&mut self, how_many: usize) -> &mut Self {
        self.code.extend(std::iter::repeat_n(Op::Plain, how_many));
        self
    }

    fn to(&mut self, op: Op, target: &'static str) -> &mut Self {
        self.fixups.push((self.code.len(), target, None));
        self.code.push(op);
        self
    }

    fn computed(&mut self, again: &'static str, end: &'static str) -> &mut Self {
        self.fixups.push((self.code.len(), again, Some(end)));
        self.code.push(Op::Computed(0, 0));
        self
    }

    /// `dec rbx; jnz target`.
    fn next(&mut self, target: &'static str) -> &mut Self {
        self.ops(&[Op::DecRbx]).to(Op::Branch(When::RbxNonZero, 0), target)
    }

    fn finish(&mut self) -> Program {
        self.ops(&[Op::VmCall]);
        let mut handlers = HashMap::new();
        for (vector, body) in [
            (1_u8, &[Op::FrameRf, Op::Iret][..]),
            (3, &[Op::Plain, Op::Iret]),
            (0x40, &[Op::Plain, Op::Iret]),
            (0x20, &[Op::Memory, Op::Iret]),
            (6, &[Op::SkipFaulting, Op::Iret]),
            (0, &[Op::SkipFaulting, Op::Iret]),
            (13, &[Op::Plain, Op::SkipFaulting, Op::Iret]),
            (14, &[Op::Plain, Op::MapPage, Op::Iret]),
        ] {
            handlers.insert(vector, self.code.len());
            self.ops(body);
        }
        for &(at, first, second) in &self.fixups {
            let first = self.labels[first];
            match &mut self.code[at] {
                Op::Branch(_, to) | Op::Call(to) | Op::BreakpointOn(to) => *to = first,
                Op::Computed(again, end) => {
                    *again = first;
                    *end = self.labels[second.expect("two targets")];
                }
                other => panic!("{other:?} has no target"),
            }
        }
        Program { code: std::mem::take(&mut self.code), handlers }
    }
}

/// RBX rounds of this, whose page fault is handled by that.
pub fn rounds(body: &[Op], handler: &[Op]) -> Program {
    let mut program = Assembler::new().label("1").ops(body).next("1").finish();
    program.handlers.insert(14, program.code.len());
    program.code.extend(handler);
    program.code.extend([Op::MapPage, Op::Iret]);
    program
}

/// The program of a stub.
pub fn program(stub: Stub) -> Program {
    use Op::*;
    let a = &mut Assembler::new();
    match stub {
        Stub::Nothing => a,
        Stub::Mixed => a
            .label("1")
            .plain(2)
            .to(Branch(When::RbxEven, 0), "2")
            .plain(1)
            .label("2")
            .ops(&[Memory, Memory, Memory, Plain])
            .next("1"),
        Stub::Taken | Stub::NotTaken => {
            let when = if stub == Stub::Taken { When::Always } else { When::Never };
            a.plain(3)
                .label("1")
                .plain(1)
                .to(Branch(when, 0), "2")
                .label("2")
                .ops(&[DecRbx, Plain])
                .computed("1", "9")
                .label("9")
        }
        Stub::Pages => a
            .label("1")
            .plain(3)
            .ops(&[Memory, Memory, Memory])
            .to(Call(0), "f")
            .next("1")
            .ops(&[VmCall])
            .label("f")
            .ops(&[Plain, Return]),
        Stub::Interruptible => a.ops(&[Sti, Plain]).label("1").plain(2).next("1"),
        Stub::Window => a.label("1").ops(&[Cli, Plain, Plain, Sti, Plain, Plain]).next("1"),
        Stub::RepMovs => a.label("1").ops(&[Plain, Plain, LeaRcx, Rep(u64::MAX)]).next("1"),
        Stub::RepMovsBackward => {
            a.plain(1).label("1").ops(&[Plain, Plain, LeaRcx, Rep(u64::MAX)]).next("1").plain(1)
        }
        Stub::RepStos => a.label("1").ops(&[Plain, LeaRcx, Rep(u64::MAX)]).next("1"),
        Stub::RepCompare => {
            a.plain(2).label("1").ops(&[Plain, Plain, LeaRcx, Rep(21), Plain, LeaRcx, Rep(21)]).next("1")
        }
        Stub::RepEdges => a
            .label("1")
            .ops(&[Plain, Plain, Rcx(0), Rep(9), Rcx(1), Rep(9), Rcx(0), Rep(9), Rcx(1), Rep(9)])
            .next("1"),
        Stub::SoftwareInterrupts => a.label("1").ops(&[Int(0x40), Int(3)]).next("1"),
        Stub::Syscall => {
            a.plain(3).label("1").to(Call(0), "f").next("1").ops(&[VmCall]).label("f").ops(&[Plain, Return])
        }
        Stub::FarTransfers => a
            .plain(8)
            .label("1")
            .to(Call(0), "f")
            .plain(4)
            .next("1")
            .ops(&[VmCall])
            .label("f")
            .ops(&[Plain, Return]),
        Stub::Faults => a.plain(2).label("1").ops(&[Fault(6), Fault(13), Fault(0)]).next("1"),
        Stub::PageFaults => a.plain(2).label("1").ops(&[Touch, UnmapPage, Plain]).next("1"),
        Stub::Emulated => a
            .ops(&[SetR12])
            .label("1")
            .ops(&[Plain, Emulated, Emulated, DecR12])
            .to(Branch(When::R12NonZero, 0), "1"),
        Stub::Shadows => a.plain(1).label("1").ops(&[Sti, Plain, Cli, MovSs, Plain, Plain]).next("1"),
        Stub::TrapFlag => a.plain(2).ops(&[TrapOn]).label("1").next("1").ops(&[Plain, Plain, TrapOff]),
        Stub::Halt => a.label("1").ops(&[Sti, Halt]).next("1"),
        Stub::DebugRegisters => a
            .ops(&[Plain, Emulated, Plain])
            .to(BreakpointOn(0), "2")
            .label("1")
            .plain(1)
            .label("2")
            .plain(1)
            .next("1")
            .ops(&[Plain, BreakpointOff]),
    }
    .finish()
}
