//! The properties as data: which stub, which disturbances, which exact counts.
//!
//! A stub's counts are written down from its instructions, not from a run: equal to each other is not enough. All
//! stubs start with RBX = `count` and end with VMCALL, which does not retire. The stubs themselves are the kernel's
//! (`hypervisor/src/proof/stubs.rs`); the listing of each is in its doc comment here, handlers in brackets.

use core::fmt;

/// Instructions of the handler of an injected interrupt (vector [`VECTOR`]): INC, IRETQ.
pub const HANDLER_INSTRUCTIONS: u64 = 2;

/// The vector that the proof injects into its guest.
pub const VECTOR: u8 = 0x20;

/// What the host does to the guest while it runs; a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disturbance(pub u8);

impl Disturbance {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Pages are taken away in EPT, at the start and at random exits.
    pub const EPT: Self = Self(1);
    /// The VMX-preemption timer at random short periods.
    pub const TIMER: Self = Self(2);
    /// Host interrupts, pending at entry or within a random short time.
    pub const INTERRUPTS: Self = Self(4);
    /// The Monitor Trap Flag on every instruction.
    pub const MTF: Self = Self(8);
    /// Interrupts injected at random exits where the guest can take them.
    pub const INJECT: Self = Self(16);
    /// Each injection finds all pages taken away: EPT violations interrupt its delivery.
    pub const DELIVERY: Self = Self(32);

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set less `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Does the set hold all of `other`?
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl fmt::Display for Disturbance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Self::EPT, "ept"),
            (Self::TIMER, "timer"),
            (Self::INTERRUPTS, "interrupts"),
            (Self::MTF, "mtf"),
            (Self::INJECT, "inject"),
            (Self::DELIVERY, "delivery"),
        ];
        let mut separator = "";
        for (one, name) in names {
            if self.has(one) {
                write!(f, "{separator}{name}")?;
                separator = "+";
            }
        }
        if separator.is_empty() { f.write_str("none") } else { Ok(()) }
    }
}

/// The tiny guest programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stub {
    /// VMCALL at once.
    Nothing,
    /// Loop of 9, and one more for odd counts: `add rax,rbx; test bl,1; jz +; (inc rsi); mov [d],rax; mov rdi,[d];
    /// push rdi; pop rdx; dec rbx; jnz`.
    Mixed,
    /// `test eax,eax; jz next (always taken); dec rbx; cmovz rdi,rsi; jmp rdi`; before it `xor eax,eax` and two LEA.
    Taken,
    /// `test eax,eax; jnz (never taken); dec rbx; cmovz rdi,rsi; jmp rdi`; before it `xor eax,eax` and two LEA.
    NotTaken,
    /// `mov eax,ebx; and eax,15; shl eax,12; add [d+rax],rbx; push rbx; pop rdx; call f [inc rdi; ret]; dec rbx; jnz`:
    /// sixteen data pages, the stack, a second code page.
    Pages,
    /// `sti; nop`, then `lea rdx,[rbx+rbx]; xor rax,rdx; dec rbx; jnz`: can be interrupted anywhere.
    Interruptible,
    /// `cli; add rax,rbx; xor rax,rdx; sti; nop; nop; dec rbx; jnz`: interrupts must wait for the window.
    Window,
    /// `mov rsi; mov rdi; lea rcx,[rbx-1]; rep movsb; dec rbx; jnz`: every length down to 0, across pages.
    RepMovs,
    /// The same, from high to low: `std` before and `cld` after the loop.
    RepMovsBackward,
    /// `mov rdi; lea rcx,[rbx-1]; rep stosq; dec rbx; jnz`.
    RepStos,
    /// `mov byte [s+20],1; mov al,1`, then `mov rsi; mov rdi; lea rcx,[rbx-1]; repe cmpsb; mov rdi; lea rcx,[rbx-1];
    /// repne scasb; dec rbx; jnz`: both end early when long enough.
    RepCompare,
    /// RCX = 0 and 1: `mov rsi; mov rdi; xor ecx,ecx; rep movsb; mov ecx,1; rep stosb; xor ecx,ecx; repe cmpsb;
    /// mov ecx,1; rep lodsb; dec rbx; jnz`.
    RepEdges,
    /// `int 40h [inc; iretq]; int3 [inc; iretq]; dec rbx; jnz`.
    SoftwareInterrupts,
    /// `mov r11,2; lea rcx; sysretq`, then in ring 3 `syscall [inc r12; sysretq]; dec rbx; jnz`.
    Syscall,
    /// Eight to set up, then `lcall [inc rdi; lret]; push; push; lretq; ljmp; dec rbx; jnz`.
    FarTransfers,
    /// `xor ecx,ecx; mov r14,non-canonical`, then `ud2 [add; iretq]; mov [r14],rax [add rsp,8; add; iretq];
    /// div ecx [add; iretq]; dec rbx; jnz`.
    Faults,
    /// `mov r15; mov r13`, then `mov [r15],rbx [add rsp,8; or [r13],1; iretq]; and [r13],-2; invlpg [r15]; dec rbx; jnz`:
    /// the faulting instruction runs again with RF = 1.
    PageFaults,
    /// `mov r12,rbx`, then `xor eax,eax; cpuid; out 80h,al; dec r12; jnz`: two instructions counted by software.
    Emulated,
    /// `mov eax,ss`, then `sti; nop; cli; mov ss,eax; nop; add rdx,rbx; dec rbx; jnz`.
    Shadows,
    /// `pushfq; or [rsp],100h; popfq`, then with TF `dec rbx; jnz`, then `pushfq; and [rsp],~100h; popfq`; each
    /// instruction under TF adds the handler `[bts; iretq]`.
    TrapFlag,
    /// `sti; hlt; [inc; iretq]; dec rbx; jnz`: the host wakes it.
    Halt,
    /// `lea; mov dr1; mov eax; mov dr7`, then `add rdx,rbx; xor rdx,rax (breakpoint) [bts; iretq]; dec rbx; jnz`, then
    /// `xor eax,eax; mov dr7`.
    DebugRegisters,
}

/// Exact counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Instructions retired.
    pub n: u64,
    /// Conditional branches retired.
    pub c: u64,
}

impl Stub {
    /// The counts at the final VMCALL for RBX = `count` (at least 1), without injected interrupts.
    #[must_use]
    pub const fn expected(self, count: u64) -> Counts {
        let (fixed, each, branches) = match self {
            Self::Nothing => return Counts { n: 0, c: 0 },
            Self::Mixed => (count.div_ceil(2), 9, 2),
            Self::Taken | Self::NotTaken => (3, 5, 1),
            Self::Pages => (0, 11, 1),
            Self::Interruptible => (2, 4, 1),
            Self::Window => (0, 8, 1),
            Self::RepMovs => (0, 6, 1),
            Self::RepMovsBackward => (2, 6, 1),
            Self::RepStos => (0, 5, 1),
            Self::RepCompare => (2, 9, 1),
            Self::RepEdges => (0, 12, 1),
            Self::SoftwareInterrupts => (0, 8, 1),
            Self::Syscall => (3, 5, 1),
            Self::FarTransfers => (8, 9, 1),
            Self::Faults => (2, 9, 1),
            Self::PageFaults => (2, 8, 1),
            Self::Emulated => (1, 5, 1),
            Self::Shadows => (1, 8, 1),
            Self::TrapFlag => (3 + 3 * 3, 2 * 3, 1),
            Self::Halt => (0, 6, 1),
            Self::DebugRegisters => (4 + 2, 6, 1),
        };
        Counts { n: fixed + each * count, c: branches * count }
    }

    /// Boundaries that single steps stop at, at most, for RBX = `count`: one per instruction, one per iteration of a REP,
    /// one per event delivered. What a recording has to hold.
    #[must_use]
    pub const fn steps_max(self, count: u64) -> u64 {
        let more = match self {
            Self::RepMovs | Self::RepMovsBackward | Self::RepStos => count * count / 2,
            Self::RepCompare => count * count,
            Self::SoftwareInterrupts => 2 * count,
            Self::Faults => 3 * count,
            Self::PageFaults | Self::Halt | Self::DebugRegisters => count,
            Self::TrapFlag => 3 + 2 * count,
            _ => 0,
        };
        self.expected(count).n + more + 1
    }

    /// A count that makes a run about `steps` boundaries long.
    #[must_use]
    pub const fn count_for(self, steps: u64) -> u64 {
        if matches!(self, Self::Nothing) {
            return 0;
        }
        let mut count = 1;
        while self.steps_max(count + 1) <= steps {
            count += 1;
        }
        count
    }
}

/// What kind of test a property is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Counters hold every bit written to them.
    Registers,
    /// Overflow interrupts come, once each, mask themselves, and their skid is measured.
    Overflow,
    /// Entering and leaving at once counts nothing.
    Neutral,
    /// Runs with exact counts, then landings.
    Counting,
}

/// One property of the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Property {
    /// Its name, as the table and the machine lines say it.
    pub name: &'static str,
    /// What holds when it holds.
    pub claim: &'static str,
    /// How it is tested.
    pub kind: Kind,
    /// On which stub.
    pub stub: Stub,
    /// Under which disturbances, in turn.
    pub under: &'static [Disturbance],
}

const NONE: Disturbance = Disturbance::NONE;
const EPT: Disturbance = Disturbance::EPT;
const TIMER: Disturbance = Disturbance::TIMER;
const INTERRUPTS: Disturbance = Disturbance::INTERRUPTS;
const MTF: Disturbance = Disturbance::MTF;
const INJECT: Disturbance = Disturbance::INJECT;
const HOST: Disturbance = EPT.with(TIMER).with(INTERRUPTS);
/// What every guest program is put through.
const ALL: &[Disturbance] = &[NONE, EPT, TIMER, INTERRUPTS, MTF, HOST, HOST.with(MTF)];
const INJECTED: &[Disturbance] =
    &[INJECT.with(TIMER), INJECT.with(INTERRUPTS), INJECT.with(MTF), INJECT.with(HOST)];

const fn counting(
    name: &'static str,
    claim: &'static str,
    stub: Stub,
    under: &'static [Disturbance],
) -> Property {
    Property { name, claim, kind: Kind::Counting, stub, under }
}

/// All properties, in the order they are tested: first what the later ones stand on.
pub const PROPERTIES: &[Property] = &[
    Property {
        name: "counter-width",
        claim: "counters keep every bit written",
        kind: Kind::Registers,
        stub: Stub::Nothing,
        under: &[NONE],
    },
    Property {
        name: "entry-exit",
        claim: "entries and exits count nothing",
        kind: Kind::Neutral,
        stub: Stub::Nothing,
        under: &[INTERRUPTS],
    },
    Property {
        name: "overflow-interrupt",
        claim: "each overflow interrupts once and masks itself",
        kind: Kind::Overflow,
        stub: Stub::Mixed,
        under: &[NONE],
    },
    counting("no-exits", "a program that never exits counts exactly", Stub::Mixed, &[NONE]),
    counting("taken-branches", "taken conditional branches count", Stub::Taken, &[NONE]),
    counting("not-taken-branches", "conditional branches not taken count", Stub::NotTaken, &[NONE]),
    counting("ept-violations", "EPT violations count nothing", Stub::Pages, &[EPT]),
    counting("preemption-timer", "VMX-preemption timer exits count nothing", Stub::Mixed, &[TIMER]),
    counting("external-interrupts", "host interrupts count nothing", Stub::Mixed, &[INTERRUPTS]),
    counting("mtf", "single steps count one each", Stub::Mixed, &[MTF]),
    counting("injection", "an injection counts nothing, its IRET one", Stub::Interruptible, INJECTED),
    counting("interrupt-window", "so too through the interrupt window", Stub::Window, INJECTED),
    counting(
        "injection-ept",
        "so too when its delivery hits an EPT violation",
        Stub::Interruptible,
        &[INJECT.with(HOST).with(Disturbance::DELIVERY)],
    ),
    counting("rep-movs", "REP MOVS split by exits counts once", Stub::RepMovs, ALL),
    counting("rep-movs-backward", "REP MOVS with DF set counts once", Stub::RepMovsBackward, ALL),
    counting("rep-stos", "REP STOS split by exits counts once", Stub::RepStos, ALL),
    counting("rep-compare", "REP CMPS and SCAS that end early count once", Stub::RepCompare, ALL),
    counting("rep-edges", "REP with RCX 0 and 1 counts once", Stub::RepEdges, ALL),
    counting(
        "software-interrupts",
        "INT n and INT3 count one, delivery nothing",
        Stub::SoftwareInterrupts,
        ALL,
    ),
    counting("syscall", "SYSCALL and SYSRET count one", Stub::Syscall, ALL),
    counting("far-transfers", "far calls, jumps and returns count one", Stub::FarTransfers, ALL),
    counting("faults", "an instruction that faults counts nothing", Stub::Faults, ALL),
    counting("page-faults", "a page fault's restart counts once", Stub::PageFaults, ALL),
    counting("emulated", "emulated instructions count by software only", Stub::Emulated, ALL),
    counting("shadows", "STI and MOV SS shadows hide no count", Stub::Shadows, ALL),
    counting("trap-flag", "a guest that steps itself counts exactly", Stub::TrapFlag, ALL),
    counting("debug-registers", "a guest's own breakpoints count nothing", Stub::DebugRegisters, ALL),
    counting("halt", "HLT counts once, its wake-up nothing", Stub::Halt, ALL),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::format;

    #[test]
    fn names_are_unique_words() {
        let names: HashSet<_> = PROPERTIES.iter().map(|p| p.name).collect();
        assert_eq!(names.len(), PROPERTIES.len());
        for p in PROPERTIES {
            assert!(p.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'));
            assert!(!p.under.is_empty() && p.claim.len() <= 56, "{}", p.name);
        }
    }

    #[test]
    fn counts_fit_the_recording() {
        for p in PROPERTIES.iter().filter(|p| p.stub != Stub::Nothing) {
            for steps in [600, 4000] {
                let count = p.stub.count_for(steps);
                assert!(count >= 8, "{} {count}", p.name);
                assert!(p.stub.steps_max(count) <= steps && p.stub.steps_max(count + 1) > steps);
            }
        }
    }

    #[test]
    fn disturbance_names() {
        assert_eq!(format!("{}", Disturbance::NONE), "none");
        assert_eq!(format!("{}", HOST.with(MTF)), "ept+timer+interrupts+mtf");
    }
}
