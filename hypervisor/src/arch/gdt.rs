//! Segments and task state: one table per processor, with a stack for each interrupt that must not trust the current
//! one.

use super::{percpu, stack};
use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::structures::gdt::{Descriptor, DescriptorFlags, GlobalDescriptorTable};
use x86_64::structures::tss::TaskStateSegment;
use x86_64::{PrivilegeLevel, structures::gdt::SegmentSelector};

/// Selector of the 64-bit code segment; the boot table has it at the same place.
pub const CODE: u16 = 0x08;
/// Selector of the data segment.
pub const DATA: u16 = 0x10;
/// Selector of the task state.
pub const TASK: u16 = 0x18;

/// Vectors with a stack of their own, and its number in the task state (1 to 7): double fault, NMI, machine check,
/// page fault (a stack that has run into its guard page has no room for its own page fault).
pub const INTERRUPT_STACKS: [(u8, u16); 4] = {
    use super::idt::vector;
    [(vector::DOUBLE_FAULT, 1), (vector::NMI, 2), (vector::MACHINE_CHECK, 3), (vector::PAGE_FAULT, 4)]
};

static TASKS: [Once<TaskStateSegment>; percpu::MAX_CPUS] = [const { Once::new() }; percpu::MAX_CPUS];
static TABLES: [Once<GlobalDescriptorTable>; percpu::MAX_CPUS] = [const { Once::new() }; percpu::MAX_CPUS];

/// Gives this processor its table and task state, with new interrupt stacks. Once per processor, after the stacks'
/// address space exists.
///
/// # Errors
/// No memory for the stacks.
pub fn init() -> Result<(), crate::memory::OutOfFrames> {
    let number = percpu::number();
    let mut task = TaskStateSegment::new();
    for (_, index) in INTERRUPT_STACKS {
        let stack = stack::allocate(stack::INTERRUPT_BYTES)?;
        task.interrupt_stack_table[usize::from(index) - 1] = VirtAddr::new(stack.top);
    }
    let task = TASKS[number].call_once(|| task);
    let table = TABLES[number].call_once(|| {
        let mut table = GlobalDescriptorTable::new();
        table.append(Descriptor::kernel_code_segment());
        table.append(Descriptor::UserSegment(DescriptorFlags::KERNEL_DATA.bits()));
        let task = table.append(Descriptor::tss_segment(task));
        assert!(task.0 == TASK);
        table
    });
    table.load();
    let selector = |s: u16| SegmentSelector::new(s / 8, PrivilegeLevel::Ring0);
    // SAFETY: 1. The table just loaded is static and has code, data and task state at these selectors. 2. The task
    // state is static and this processor's own.
    unsafe {
        CS::set_reg(selector(CODE));
        SS::set_reg(selector(DATA));
        DS::set_reg(selector(DATA));
        ES::set_reg(selector(DATA));
        load_tss(selector(TASK));
    }
    Ok(())
}

/// Address of this processor's task state, for the VMCS's host state. `None` before [`init`].
pub fn task_address() -> Option<u64> {
    TASKS[percpu::number()].get().map(|t| (&raw const *t).addr() as u64)
}
