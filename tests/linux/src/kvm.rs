//! Counting in a guest of Linux's own KVM: guest-only counters count exactly what the guest retires.

use std::path::Path;

use crate::{
    counter::{CONDITIONAL, Counter, Event, INSTRUCTIONS, Scope},
    report::Report,
    sys::{
        kvm::{EXIT_HLT, EXIT_IO, Machine},
        machine,
    },
};

/// Modules in the order of their needs; the initial file system has them if the kernel has them as modules.
const MODULES: [&str; 3] = ["irqbypass", "kvm", "kvm-intel"];

/// A guest program and what it retires. The HLT at each end exits and does not retire.
struct Program {
    name: &'static str,
    code: Vec<u8>,
    instructions: u64,
    conditional: u64,
    /// Exits to user space by I/O.
    outs: u64,
}

/// `mov r32, rounds` (16-bit code): opcode of the register.
pub fn load(opcode: u8, rounds: u32) -> Vec<u8> {
    [&[0x66, opcode][..], &rounds.to_le_bytes()].concat()
}

fn programs() -> Vec<Program> {
    let with = |start: Vec<u8>, rest: &[u8]| [&start[..], rest].concat();
    let program =
        |name, code, instructions, conditional, outs| Program { name, code, instructions, conditional, outs };
    // mov ecx, n; 2: dec ecx; jnz 2b; hlt
    let spin = |n: u32| with(load(0xb9, n), &[0x66, 0x49, 0x75, 0xfc, 0xf4]);
    // mov esi, n; 2: xor eax, eax; cpuid; dec esi; jnz 2b; hlt. CPUID exits and is emulated: it does not retire.
    let cpuid = |n: u32| with(load(0xbe, n), &[0x66, 0x31, 0xc0, 0x0f, 0xa2, 0x66, 0x4e, 0x75, 0xf7, 0xf4]);
    // mov esi, n; 2: out 10h, al; dec esi; jnz 2b; hlt. OUT exits to user space and does not retire.
    let out = |n: u32| with(load(0xbe, n), &[0xe6, 0x10, 0x66, 0x4e, 0x75, 0xfa, 0xf4]);
    // mov di, 4000h; mov cx, 8000h; mov al, 5ah; rep stosb; hlt: eight pages that all fault.
    let string = vec![0xbf, 0x00, 0x40, 0xb9, 0x00, 0x80, 0xb0, 0x5a, 0xf3, 0xaa, 0xf4];
    vec![
        program("string-over-new-pages", string, 4, 0, 0),
        program("spin-1000", spin(1000), 2001, 1000, 0),
        program("spin-3000000", spin(3_000_000), 6_000_001, 3_000_000, 0),
        program("cpuid-1000", cpuid(1000), 3001, 1000, 0),
        program("out-300", out(300), 601, 300, 300),
    ]
}

/// Inserts KVM's modules, where they are not built in.
pub fn insert_modules() {
    for module in MODULES {
        let path = format!("/modules/{module}.ko");
        if Path::new(&path).exists()
            && let Err(error) = machine::insert_module(&path)
        {
            println!("@@ fact module={module} error={error}");
        }
    }
}

/// All checks.
pub fn run(report: &mut Report) {
    insert_modules();
    for program in programs() {
        for (kind, event, want) in [
            ("instructions", INSTRUCTIONS, program.instructions),
            ("conditional", CONDITIONAL, program.conditional),
        ] {
            let (least, most) = in_the_guest(report, &program, event);
            report.equal(&format!("guest-{kind}-least:{}", program.name), least, want);
            report.equal(&format!("guest-{kind}-most:{}", program.name), most, want);
        }
    }
    host_only(report);
}

/// What a program counts in the guest, least and most of some runs, each in a fresh virtual machine.
fn in_the_guest(report: &mut Report, program: &Program, event: Event) -> (u64, u64) {
    let (mut least, mut most) = (u64::MAX, 0);
    for _ in 0..3 {
        let mut vm = Machine::new().expect("a virtual machine");
        vm.load(&program.code).expect("a program");
        let mut counter = Counter::open(event, Scope::Guest);
        let mut outs = 0;
        let counted = counter.count(|| outs = to_the_end(&mut vm));
        (least, most) = (least.min(counted), most.max(counted));
        if outs != program.outs {
            report.equal(&format!("outs:{}", program.name), outs, program.outs);
        }
        if program.name.starts_with("string") {
            let stored = (0x4000..0xc000).filter(|&at| vm.byte(at) == 0x5a).count() as u64;
            report.equal("string-stored", stored, 0x8000);
        }
    }
    (least, most)
}

/// Runs to the HLT; the number of exits by I/O.
pub fn to_the_end(vm: &mut Machine) -> u64 {
    let mut outs = 0;
    loop {
        match vm.run().expect("KVM_RUN") {
            EXIT_IO => outs += 1,
            EXIT_HLT => return outs,
            reason => panic!("KVM exit {reason}"),
        }
    }
}

/// A counter that excludes guests does not see the guest's loop.
fn host_only(report: &mut Report) {
    let programs = programs();
    let spin = programs.iter().find(|program| program.name == "spin-3000000").expect("a program");
    let mut vm = Machine::new().expect("a virtual machine");
    vm.load(&spin.code).expect("a program");
    let counted = Counter::open(INSTRUCTIONS, Scope::Host).count(|| {
        to_the_end(&mut vm);
    });
    report.within("host-only", counted, 1000, 3_000_000);
}
