//! Four tasks and the program itself, each with its own address space, two of them in ring 3, changed by the timer.

use core::arch::naked_asm;
use core::cell::UnsafeCell;

use super::{storm, tables, trail};
use crate::traps::{Frame, KERNEL_CS, KERNEL_SS, USER_CS, USER_SS};
use crate::{cpu, ring3};

/// Tasks beside the program, which is task 0; task n lives in address space n.
const TASKS: usize = 4;
/// Words of a stack.
const STACK: usize = 2048;
/// Pages of the window that each has for itself.
const OWN: u64 = 8;
/// The page in which a task leaves its result.
const RESULT: u64 = 7;

struct State {
    frames: [Frame; TASKS + 1],
    running: usize,
    stacks: [[u64; STACK]; TASKS],
}
struct Cell(UnsafeCell<State>);
// SAFETY: used with interrupts kept out only.
unsafe impl Sync for Cell {}
const NO_FRAME: Frame = Frame {
    r15: 0,
    r14: 0,
    r13: 0,
    r12: 0,
    r11: 0,
    r10: 0,
    r9: 0,
    r8: 0,
    rbp: 0,
    rdi: 0,
    rsi: 0,
    rdx: 0,
    rcx: 0,
    rbx: 0,
    rax: 0,
    vector: 0,
    error: 0,
    rip: 0,
    cs: 0,
    rflags: 0,
    rsp: 0,
    ss: 0,
};
static STATE: Cell =
    Cell(UnsafeCell::new(State { frames: [NO_FRAME; TASKS + 1], running: 0, stacks: [[0; STACK]; TASKS] }));

/// Works on the memory at RSI, which every task has at the same address, for R8 rounds; leaves the result, and waits for ever.
#[unsafe(naked)]
extern "C" fn kernel_task() {
    naked_asm!(
        "2: mov rdx, r8",
        "and rdx, 0x5ff8",
        "mov rax, [rsi + rdx]",
        "add rax, r8",
        "rol rax, 7",
        "xor rax, r9",
        "mov [rsi + rdx], rax",
        "add rbx, rax",
        "push rbx",
        "pop rbx",
        "dec r8",
        "jnz 2b",
        "or rbx, 1",
        "mov [rsi + 0x7000], rbx",
        "3: pause",
        "jmp 3b"
    )
}

/// The same in ring 3, with a system call in each round.
#[unsafe(naked)]
extern "C" fn user_task() {
    naked_asm!(
        "2: mov rdx, r8",
        "and rdx, 0x5ff8",
        "mov rax, [rsi + rdx]",
        "add rax, r8",
        "rol rax, 7",
        "xor rax, r9",
        "mov [rsi + rdx], rax",
        "add rbx, rax",
        "syscall",
        "push rbx",
        "pop rbx",
        "dec r8",
        "jnz 2b",
        "or rbx, 1",
        "mov [rsi + 0x7000], rbx",
        "3: jmp 3b"
    )
}

/// The hook: the interrupted task's registers are kept, the next one's are loaded.
fn change(frame: &mut Frame) {
    // SAFETY: an interrupt's handler; nothing else has it now.
    let state = unsafe { &mut *STATE.0.get() };
    state.frames[state.running] = *frame;
    state.running = (state.running + 1 + storm::random() as usize % 2) % (TASKS + 1);
    *frame = state.frames[state.running];
    tables::enter(state.running as u64);
}

fn start(round: u64, rounds: u64) {
    // SAFETY: interrupts are kept out.
    let state = unsafe { &mut *STATE.0.get() };
    state.running = 0;
    for task in 1..=TASKS {
        let own = 512 + 16 * task as u64;
        for page in 0..OWN {
            tables::set(task as u64, page, tables::frame(own + page) | tables::OPEN);
            tables::copy_frame(page, own + page);
        }
        let user = task > TASKS / 2;
        let code = if user { user_task as extern "C" fn() } else { kernel_task };
        let (cs, ss) = if user { (USER_CS, USER_SS) } else { (KERNEL_CS, KERNEL_SS) };
        state.frames[task] = Frame {
            rip: code as usize as u64,
            cs: cs.into(),
            ss: ss.into(),
            rflags: 0x202,
            rsp: (&raw const state.stacks[task - 1]) as u64 + 8 * STACK as u64,
            rsi: tables::WINDOW,
            r8: rounds + 3 * round,
            r9: 0x1234_5678_9abc_def1_u64.wrapping_mul(task as u64 + round),
            ..NO_FRAME
        };
    }
}

/// The result of a task; 0 while it has none.
fn result(task: usize) -> u64 {
    tables::load_frame(512 + 16 * task as u64 + RESULT, 0)
}

/// All tasks to their ends, several times.
pub fn all() -> u64 {
    ring3::init();
    let mut all = trail::SEED;
    for round in 0..super::rounds(4) {
        for page in 0..OWN {
            (0..512).for_each(|word| tables::store(tables::page(page) + 8 * word, 0));
        }
        cpu::interrupts_off();
        start(round, 40_000);
        storm::set_hook(Some(change));
        cpu::interrupts_on();
        while (1..=TASKS).any(|task| result(task) == 0) {
            cpu::pause();
        }
        cpu::interrupts_off();
        storm::set_hook(None);
        cpu::interrupts_on();
        for task in 1..=TASKS {
            all = trail::mix(all, result(task));
        }
    }
    all
}
