//! A virtual processor: its VMCS, its registers, one entry and the exit from it. The loop around it is `vcpu`.

use super::debug_registers::DebugState;
use super::setup;
use super::vm::Vm;
use crate::arch::crc::Crc32;
use crate::arch::fpu::{self, FpuState};
use crate::arch::physical::Pages;
use crate::arch::vmenter::{self, Registers};
use crate::arch::vmx::{self as processor, Loaded};
use crate::arch::{cpu, paging, percpu};
use crate::events::{Event as Noted, Ring};
use crate::memory::{FRAME, OutOfFrames, Zone};
use core::fmt;
use core::sync::atomic::{AtomicU16, Ordering};
use machine::cpu::{CpuView, Limits, Profile};
use replay::exits_hash::ExitsHash;
use vmx::caps::Capabilities;
use vmx::controls::{self, Control, Controls, Refusal, Word};
use vmx::errors::VmFail;
use vmx::exit::{EptViolation, Exit, REASON_NAMES, Reason};
use vmx::fields::{self, VmcsRead, VmcsWrite};
use vmx::guest_state::{self, BrokenRule, Context, GuestState, bits};
use vmx::inject::{self, Event, Interruptibility, Readiness};
use vmx::instructions::CurrentVmcs;
use vmx::msr_bitmap::{self, Intercept};
use vmx::{io_bitmap, requirements};

/// MSRs that VM entries and exits swap, so that the guest may use them directly: IA32_SYSENTER_CS, ESP and EIP, IA32_PAT,
/// IA32_FS_BASE and IA32_GS_BASE.
const OWN_MSRS: [u32; 6] = [0x174, 0x175, 0x176, 0x277, 0xc000_0100, 0xc000_0101];

/// RFLAGS.RF.
const RFLAGS_RF: u64 = 1 << 16;

/// In place of the last exit's reason: there was none since the processor was loaded.
const NO_EXIT: u16 = u16::MAX;

/// The next VPID to give out. 0 is the host.
static NEXT_VPID: AtomicU16 = AtomicU16::new(1);

/// Why a virtual processor cannot be made.
#[derive(Clone, Copy, Debug)]
pub enum VcpuError {
    /// No memory.
    Memory(OutOfFrames),
    /// A control.
    Control(Refusal),
    /// A VMX instruction failed.
    Vmx(VmFail),
    /// All 65,535 VPIDs are given out.
    Vpids,
}

impl fmt::Display for VcpuError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(error) => write!(f, "virtual processor: {error}"),
            Self::Control(refusal) => write!(f, "virtual processor: {refusal}"),
            Self::Vmx(error) => write!(f, "virtual processor: {error}"),
            Self::Vpids => f.write_str("virtual processor: no VPID left"),
        }
    }
}

/// A virtual processor at rest.
pub struct Vcpu {
    /// The registers that the VMCS does not hold.
    pub registers: Registers,
    caps: Capabilities,
    region: Pages,
    msr_bitmap: Pages,
    io_bitmap: Pages,
    controls: Controls,
    vpid: u16,
    launched: bool,
    guest_msrs: [u64; processor::GUEST_MSRS.len()],
    debug: DebugState,
    fpu: FpuState,
    /// The guest's XCR0.
    xcr0: u64,
    /// What its profile lets it set.
    limits: Limits,
    counts: [u64; REASON_NAMES.len()],
    /// Counts of the time-stamp counter from exits of each reason to the entries after them.
    cycles: [u64; REASON_NAMES.len()],
    /// The last exit: its reason, and when it was.
    last_exit: (u16, u64),
    /// Instructions that software has completed in the guest's place: the counters do not know them.
    emulated: u64,
    exits: u64,
    /// Where exits are noted: the event ring of the processor that it was loaded on last.
    events: &'static Ring,
}

impl Vcpu {
    /// A virtual processor for this guest. Every port, every MSR and every instruction that could bring in something from
    /// outside exits. It has no state yet: see [`Active::set_state`].
    ///
    /// # Errors
    /// See [`VcpuError`].
    pub fn new(vm: &Vm, caps: &Capabilities) -> Result<Self, VcpuError> {
        let pages = |count| Pages::take(count, FRAME, Zone::Any).map_err(VcpuError::Memory);
        let mut vcpu = Self {
            registers: Registers::default(),
            caps: *caps,
            region: pages(1)?,
            msr_bitmap: pages(1)?,
            io_bitmap: pages(2)?,
            controls: requirements::guest_controls(caps).map_err(VcpuError::Control)?,
            vpid: new_vpid()?,
            launched: false,
            guest_msrs: [0; processor::GUEST_MSRS.len()],
            debug: DebugState::default(),
            fpu: FpuState::new().map_err(VcpuError::Memory)?,
            xcr0: fpu::XCR0_RESET,
            limits: Profile::all()[0].limits(),
            counts: [0; REASON_NAMES.len()],
            cycles: [0; REASON_NAMES.len()],
            last_exit: (NO_EXIT, 0),
            emulated: 0,
            exits: 0,
            events: percpu::this().events(),
        };
        vcpu.msr_bitmap.bytes_mut().fill(msr_bitmap::ALL);
        vcpu.io_bitmap.bytes_mut().fill(io_bitmap::ALL);
        processor::initialize_vmcs(caps, &mut vcpu.region).map_err(VcpuError::Vmx)?;
        let mut active = vcpu.load().map_err(VcpuError::Vmx)?;
        active.write_constants(vm.ept_pointer());
        for number in OWN_MSRS.iter().chain(processor::guest_msrs()).copied() {
            active.intercept_msr(number, Intercept::NONE);
        }
        drop(active);
        Ok(vcpu)
    }

    /// Makes it current on this processor.
    ///
    /// # Errors
    /// VMfail.
    ///
    /// # Panics
    /// Another one is current on this processor.
    pub fn load(&mut self) -> Result<Active<'_>, VmFail> {
        let loaded = processor::load_vmcs(&self.region)?;
        self.launched = false;
        self.last_exit.0 = NO_EXIT;
        self.events = percpu::this().events();
        self.registers.forget_host();
        processor::invalidate_vpid(self.vpid);
        processor::load_guest_msrs(self.guest_msrs);
        self.debug.load();
        self.fpu.load(self.limits.xcr0, self.xcr0);
        let mut active = Active { vcpu: self, loaded };
        let controls = active.vcpu.controls;
        setup::write_host(active.vmcs_mut(), &processor::host_state(), &controls);
        Ok(active)
    }

    /// Exits so far.
    pub const fn exits(&self) -> u64 {
        self.exits
    }

    /// Counts of the time-stamp counter from exits to the entries after them, by basic reason.
    pub const fn cycles(&self) -> &[u64; REASON_NAMES.len()] {
        &self.cycles
    }

    /// Exits by basic reason; names are in [`REASON_NAMES`].
    pub const fn counts(&self) -> &[u64; REASON_NAMES.len()] {
        &self.counts
    }
}

fn new_vpid() -> Result<u16, VcpuError> {
    let next = |vpid: u16| vpid.checked_add(1);
    NEXT_VPID.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).map_err(|_| VcpuError::Vpids)
}

/// A virtual processor that is current on this processor.
pub struct Active<'a> {
    vcpu: &'a mut Vcpu,
    loaded: Loaded,
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.save_registers();
        fpu::set_xcr0(fpu::XCR0_RESET);
    }
}

impl Active<'_> {
    /// Exits so far.
    pub const fn exits(&self) -> u64 {
        self.vcpu.exits
    }

    /// Instructions that software has completed in the guest's place, ever: with what the counters say, N.
    #[inline]
    pub const fn emulated(&self) -> u64 {
        self.vcpu.emulated
    }

    /// Software has completed an instruction in the guest's place, RIP and all.
    #[inline]
    pub const fn count_emulated(&mut self) {
        self.vcpu.emulated = self.vcpu.emulated.wrapping_add(1);
    }

    /// Software has completed so many instructions from now on, wrapping: a virtual machine that goes back in time takes its count
    /// back, and the counters do not.
    pub const fn set_emulated(&mut self, emulated: u64) {
        self.vcpu.emulated = emulated;
    }

    /// The basic reason of the last exit.
    #[inline]
    pub const fn last_reason(&self) -> u16 {
        self.vcpu.last_exit.0
    }

    /// The integer registers, as far as they name a place.
    pub fn place_registers(&self) -> replay::point::Registers {
        let mut registers = replay::point::Registers::NONE;
        self.write_place_registers(&mut registers);
        registers
    }

    /// The same, written there.
    #[inline(always)]
    pub fn write_place_registers(&self, to: &mut replay::point::Registers) {
        to.general = self.vcpu.registers.gpr;
        to.general[4] = self.vmcs().read(fields::GUEST_RSP);
        to.rip = self.vmcs().read(fields::GUEST_RIP);
        to.rflags = self.vmcs().read(fields::GUEST_RFLAGS);
    }

    /// Folds the last exit, which was dealt with, into the hash; N is this now. Returns RIP.
    #[inline(always)]
    pub fn fold_exit(&mut self, crc: Crc32, hash: &mut ExitsHash, n: u64) -> u64 {
        let vmcs = self.loaded.vmcs();
        let (rip, rflags) = (vmcs.read(fields::GUEST_RIP), vmcs.read(fields::GUEST_RFLAGS));
        // Nobody else uses this place: RSP is the VMCS's.
        self.vcpu.registers.gpr[4] = vmcs.read(fields::GUEST_RSP);
        crc.fold(hash, self.vcpu.last_exit.0, n, &self.vcpu.registers.gpr, rip, rflags);
        rip
    }

    /// Whether MOV SS or POP SS blocks events.
    pub fn blocked_by_mov_ss(&self) -> bool {
        Interruptibility(self.vmcs().read(fields::GUEST_INTERRUPTIBILITY)).by_mov_ss()
    }

    /// Has the guest exit (or no longer) after each instruction.
    #[inline]
    pub fn trap_instructions(&mut self, on: bool) {
        self.set(controls::MONITOR_TRAP_FLAG, on);
    }

    /// Whether the guest exits after each instruction.
    #[inline]
    pub const fn traps_instructions(&self) -> bool {
        self.vcpu.controls.has(controls::MONITOR_TRAP_FLAG)
    }

    /// Whether RF is set: the guest is within a repeated instruction, or came here by an IRET that has set it.
    pub fn repeats(&self) -> bool {
        self.vmcs().read(fields::GUEST_RFLAGS) & RFLAGS_RF != 0
    }

    /// Sets RF, so that a breakpoint on the next instruction does not hit it.
    pub fn resume_over_breakpoint(&mut self) {
        let rflags = self.vmcs().read(fields::GUEST_RFLAGS);
        self.vmcs_mut().write(fields::GUEST_RFLAGS, rflags | RFLAGS_RF);
    }

    /// The VMCS, to read.
    #[inline]
    pub const fn vmcs(&self) -> &CurrentVmcs {
        self.loaded.vmcs()
    }

    /// The VMCS, to write.
    #[inline]
    pub const fn vmcs_mut(&mut self) -> &mut CurrentVmcs {
        self.loaded.vmcs_mut()
    }

    /// General registers and CR2.
    #[inline]
    pub const fn registers(&self) -> &Registers {
        &self.vcpu.registers
    }

    /// General registers and CR2, to write.
    #[inline]
    pub const fn registers_mut(&mut self) -> &mut Registers {
        &mut self.vcpu.registers
    }

    /// Takes what is in the processor and in no VMCS field (MSRs that the guest uses directly, DR6, the FPU's state) to memory,
    /// so that it can be captured. The guest goes on as if nothing had been.
    pub fn save_registers(&mut self) {
        let vcpu = &mut *self.vcpu;
        vcpu.guest_msrs = processor::save_guest_msrs();
        vcpu.debug.save();
        vcpu.fpu.save(vcpu.limits.xcr0);
        fpu::set_xcr0(vcpu.xcr0);
    }

    /// Brings back from memory what [`Active::save_registers`] has put there.
    pub fn reload_registers(&mut self) {
        let vcpu = &mut *self.vcpu;
        processor::load_guest_msrs(vcpu.guest_msrs);
        vcpu.debug.load();
        vcpu.fpu.load(vcpu.limits.xcr0, vcpu.xcr0);
    }

    /// MSRs that no VMCS field holds, as [`Active::save_registers`] has found them.
    pub const fn guest_msrs(&self) -> &[u64; processor::GUEST_MSRS.len()] {
        &self.vcpu.guest_msrs
    }

    /// Whether a control is 1.
    pub const fn is_set(&self, control: Control) -> bool {
        self.vcpu.controls.has(control)
    }

    /// Replaces what is in the processor and in no VMCS field: see [`Active::save_registers`]. `fpu` is a copy of what
    /// [`Active::fpu`] has had.
    pub fn put_back(
        &mut self,
        msrs: [u64; processor::GUEST_MSRS.len()],
        debug: DebugState,
        xcr0: u64,
        fpu: Option<&FpuState>,
    ) {
        let vcpu = &mut *self.vcpu;
        (vcpu.guest_msrs, vcpu.debug, vcpu.xcr0) = (msrs, debug, xcr0);
        if let Some(fpu) = fpu {
            vcpu.fpu.copy_from(fpu);
        }
        self.reload_registers();
    }

    /// The x87, SSE and AVX state, as [`Active::save_registers`] has found it.
    pub const fn fpu(&self) -> &FpuState {
        &self.vcpu.fpu
    }

    /// Gives the guest a processor of this profile: control-register bits and instructions that it does not have fault. Its
    /// registers are reset: see [`Active::reset_registers`].
    pub fn set_profile(&mut self, profile: &Profile) {
        self.vcpu.limits = profile.limits();
        self.reset_registers();
        for (control, name) in [(controls::ENABLE_INVPCID, "INVPCID"), (controls::ENABLE_RDTSCP, "RDTSCP")] {
            if control.can_set(&self.vcpu.caps) {
                self.set(control, profile.has(name));
            }
        }
        let owned = self.cr4_owned();
        self.vmcs_mut().write(fields::CR4_MASK, owned);
    }

    /// Exits by basic reason, and the counts of the time-stamp counter that they have taken.
    pub const fn costs(&self) -> ([u64; REASON_NAMES.len()], [u64; REASON_NAMES.len()]) {
        (self.vcpu.counts, self.vcpu.cycles)
    }

    /// Whether RFLAGS.IF lets interrupts in.
    pub fn interrupts_enabled(&self) -> bool {
        self.vmcs().read(fields::GUEST_RFLAGS) & inject::RFLAGS_IF != 0
    }

    /// Everything that [`Active::set_state`] does not set is as after a reset: general registers, CR2, debug registers, MSRs that
    /// the guest uses directly, XCR0 and the FPU's state.
    pub fn reset_registers(&mut self) {
        let vcpu = &mut *self.vcpu;
        vcpu.registers.gpr = [0; 16];
        vcpu.registers.cr2 = 0;
        vcpu.guest_msrs = [0; processor::GUEST_MSRS.len()];
        vcpu.debug = DebugState::default();
        vcpu.xcr0 = fpu::XCR0_RESET;
        vcpu.fpu.reset();
        self.reload_registers();
    }

    /// What the guest's profile lets it set.
    #[inline]
    pub const fn limits(&self) -> Limits {
        self.vcpu.limits
    }

    /// Bits of CR4 that the host owns: those that it needs, and those that the guest's profile does not have.
    #[inline]
    pub const fn cr4_owned(&self) -> u64 {
        setup::CR4_OWNED | !self.vcpu.limits.cr4
    }

    /// What of the debug registers is not in the VMCS.
    pub const fn debug(&self) -> &DebugState {
        &self.vcpu.debug
    }

    /// What of the debug registers is not in the VMCS.
    pub const fn debug_mut(&mut self) -> &mut DebugState {
        &mut self.vcpu.debug
    }

    /// The guest's XCR0.
    pub const fn xcr0(&self) -> u64 {
        self.vcpu.xcr0
    }

    /// Sets the guest's XCR0 to a value that its profile takes.
    pub fn set_xcr0(&mut self, value: u64) {
        self.vcpu.xcr0 = value;
        fpu::set_xcr0(value);
    }

    fn write_constants(&mut self, ept: u64) {
        let Active { vcpu, loaded } = self;
        let pointers = setup::Pointers {
            msr_bitmap: &vcpu.msr_bitmap,
            io_bitmap: &vcpu.io_bitmap,
            ept,
            vpid: vcpu.vpid,
            controls: &vcpu.controls,
        };
        setup::write_controls(loaded.vmcs_mut(), &vcpu.controls);
        setup::write_execution(loaded.vmcs_mut(), &pointers);
    }

    /// Sets the whole guest state; an event that was to be injected is forgotten. The host's bits of CR0 and CR4 are added, and the guest keeps seeing its own.
    pub fn set_state(&mut self, state: &GuestState) {
        let mut real = *state;
        real.cr0 = state.cr0 & !setup::CR0_OWNED | setup::CR0_FORCED;
        real.cr4 = state.cr4 & !self.cr4_owned() | setup::CR4_FORCED;
        let counters = self.vcpu.controls.has(controls::ENTRY_LOAD_PERF_GLOBAL_CTRL);
        real.store(self.vmcs_mut(), counters);
        self.vmcs_mut().write(fields::ENTRY_INTERRUPTION_INFO, 0);
        self.vmcs_mut().write(fields::CR0_READ_SHADOW, state.cr0);
        self.vmcs_mut().write(fields::CR4_READ_SHADOW, state.cr4);
        self.set(controls::IA32E_MODE_GUEST, state.efer & bits::EFER_LMA != 0);
    }

    /// The guest state as the VMCS has it, host's bits and all.
    pub fn state(&self) -> GuestState {
        GuestState::load(self.vmcs(), self.vcpu.controls.has(controls::ENTRY_LOAD_PERF_GLOBAL_CTRL))
    }

    /// Names the rule that an entry now would break.
    ///
    /// # Errors
    /// The rule.
    pub fn check_entry(&self) -> Result<(), BrokenRule> {
        let mut controls = self.vcpu.controls;
        let long = self.vmcs().read(fields::ENTRY_CONTROLS) & 1 << controls::IA32E_MODE_GUEST.bit != 0;
        // The bit may be both 1 and 0 on every processor with 64-bit mode.
        let _ = match long {
            true => controls.set(controls::IA32E_MODE_GUEST, &self.vcpu.caps),
            false => controls.clear(controls::IA32E_MODE_GUEST, &self.vcpu.caps),
        };
        let info = self.vmcs().read(fields::ENTRY_INTERRUPTION_INFO);
        let context = Context {
            controls: &controls,
            caps: &self.vcpu.caps,
            physical_bits: paging::features().physical_bits,
            event: Event::from_words(info, || 0, || 1),
        };
        guest_state::check_entry(&self.state(), &context)
    }

    /// Switches a control; nothing is written where it is as asked already.
    ///
    /// # Panics
    /// The processor does not let it: what is switched is among the requirements.
    #[inline]
    pub fn set(&mut self, control: Control, on: bool) {
        // Exits store EFER.LMA into the entry controls, so the VMCS knows that word better than we do.
        if control.word == Word::Entry || self.vcpu.controls.has(control) != on {
            self.switch(control, on);
        }
    }

    fn switch(&mut self, control: Control, on: bool) {
        let Active { vcpu, loaded } = self;
        if control.word == Word::Entry {
            let long = loaded.vmcs().read(fields::ENTRY_CONTROLS) & 1 << controls::IA32E_MODE_GUEST.bit != 0;
            vcpu.switch(controls::IA32E_MODE_GUEST, long).unwrap_or_else(|refusal| panic!("{refusal}"));
        }
        vcpu.switch(control, on).unwrap_or_else(|refusal| panic!("{refusal}"));
        setup::write_word(loaded.vmcs_mut(), &vcpu.controls, control.word);
    }

    /// Has the guest exit (or no longer) as soon as it can take an interrupt.
    #[inline]
    pub fn request_interrupt_window(&mut self, on: bool) {
        self.set(controls::INTERRUPT_WINDOW_EXITING, on);
    }

    /// Has the guest exit (or no longer) as soon as it can take an NMI.
    #[inline]
    pub fn request_nmi_window(&mut self, on: bool) {
        self.set(controls::NMI_WINDOW_EXITING, on);
    }

    /// Lets the guest run for so many ticks of the VMX-preemption timer after each entry; None: without limit.
    pub fn set_preemption_timer(&mut self, ticks: Option<u32>) {
        self.set(controls::SAVE_PREEMPTION_TIMER, false);
        self.set(controls::ACTIVATE_PREEMPTION_TIMER, ticks.is_some());
        self.vmcs_mut().write(fields::PREEMPTION_TIMER, ticks.unwrap_or(0));
    }

    /// Lets the guest run for so many ticks of the VMX-preemption timer from now on, however often it exits in between;
    /// None: without limit. A tick is the host's time-stamp counter shifted right by IA32_VMX_MISC's bits 4:0. Time spent
    /// in the host does not count.
    #[inline]
    pub fn arm_preemption_timer(&mut self, ticks: Option<u32>) {
        // "Save VMX-preemption timer value" needs the timer active (SDM vol. 3C, "VM-Exit Control Fields").
        self.set(controls::ACTIVATE_PREEMPTION_TIMER, ticks.is_some());
        self.set(controls::SAVE_PREEMPTION_TIMER, ticks.is_some());
        if let Some(ticks) = ticks {
            self.vmcs_mut().write(fields::PREEMPTION_TIMER, ticks);
        }
    }

    /// Ticks that are left of [`Active::arm_preemption_timer`]; 0 once it has run out.
    pub fn preemption_timer_left(&self) -> u32 {
        self.vmcs().read(fields::PREEMPTION_TIMER)
    }

    /// Decides which accesses of a MSR exit. MSRs outside the bitmaps' ranges always do.
    pub fn intercept_msr(&mut self, number: u32, intercept: Intercept) {
        // What lies outside is documented to exit.
        let _ = msr_bitmap::set(self.vcpu.msr_bitmap.bytes_mut(), number, intercept);
    }

    /// Decides whether accesses of a port exit.
    pub fn intercept_port(&mut self, port: u16, exits: bool) {
        io_bitmap::set(self.vcpu.io_bitmap.bytes_mut(), port, exits);
    }

    /// A general register by its number in instructions; RSP is in the VMCS.
    pub fn read_general(&self, number: u8) -> u64 {
        match number {
            4 => self.vmcs().read(fields::GUEST_RSP),
            _ => self.vcpu.registers.gpr[usize::from(number & 15)],
        }
    }

    /// Sets the low `size` bytes of a general register as an instruction does: 4 bytes clear the upper half.
    pub fn write_general(&mut self, number: u8, size: u8, value: u64) {
        let old = self.read_general(number);
        let new = match size {
            8 => value,
            4 => value & 0xffff_ffff,
            _ => old & !0xffff | value & 0xffff,
        };
        match number {
            4 => self.vmcs_mut().write(fields::GUEST_RSP, new),
            _ => self.vcpu.registers.gpr[usize::from(number & 15)] = new,
        }
    }

    /// What the host's processor can do.
    #[inline]
    pub(super) const fn capabilities(&self) -> &Capabilities {
        &self.vcpu.caps
    }

    /// The VPID that the guest's translations are tagged with.
    #[inline]
    pub(super) const fn vpid(&self) -> u16 {
        self.vcpu.vpid
    }

    /// Drops the translations that the guest's linear addresses have.
    pub fn flush(&mut self) {
        processor::invalidate_vpid(self.vcpu.vpid);
    }

    /// Whether the guest would take an interrupt now: IF, no shadow, nothing else due. A debug exception that is pending
    /// goes first, since an injection would lose it; ask for the interrupt window then.
    #[inline]
    pub fn can_take_interrupt(&self) -> bool {
        const SHADOWS: u32 = Interruptibility::STI | Interruptibility::MOV_SS;
        let vmcs = self.vmcs();
        vmcs.read(fields::GUEST_RFLAGS) & inject::RFLAGS_IF != 0
            && vmcs.read(fields::GUEST_INTERRUPTIBILITY) & SHADOWS == 0
            && !self.delivery_is_due()
    }

    /// Whether the guest would take an NMI now; otherwise ask for the NMI window.
    pub fn can_take_nmi(&self) -> bool {
        self.readiness().check(Event::nmi()).is_ok() && !self.delivery_is_due()
    }

    /// The next entry delivers something already: an event put back or reflected, or a pending debug exception.
    #[inline]
    pub fn delivery_is_due(&self) -> bool {
        /// "BS" and "enabled breakpoint" (SDM vol. 3C, "Pending Debug Exceptions").
        const PENDING: u64 = 1 << 14 | 1 << 12;
        self.event_is_due() || self.vmcs().read(fields::GUEST_PENDING_DEBUG) & PENDING != 0
    }

    /// The next entry delivers an event: one put back, because this exit has interrupted its delivery, or one injected.
    #[inline]
    pub fn event_is_due(&self) -> bool {
        const VALID: u32 = 1 << 31;
        self.vmcs().read(fields::ENTRY_INTERRUPTION_INFO) & VALID != 0
    }

    /// Has the next entry deliver an interrupt; [`Active::can_take_interrupt`] has said that it may. RF ends: it is whatever the
    /// last exit made of it, and the frame on the guest's stack must be a function of the guest alone.
    #[inline]
    pub fn inject_interrupt(&mut self, vector: u8) {
        let rflags = self.vmcs().read(fields::GUEST_RFLAGS);
        if rflags & RFLAGS_RF != 0 {
            self.vmcs_mut().write(fields::GUEST_RFLAGS, rflags & !RFLAGS_RF);
        }
        self.inject(Event::interrupt(vector));
    }

    /// Has the next entry deliver an NMI; [`Active::can_take_nmi`] has said that it may.
    pub fn inject_nmi(&mut self) {
        let rflags = self.vmcs().read(fields::GUEST_RFLAGS);
        self.vmcs_mut().write(fields::GUEST_RFLAGS, rflags & !RFLAGS_RF);
        self.inject(Event::nmi());
    }

    /// What CPUID's answers depend on besides the leaf.
    #[inline]
    pub fn view(&self) -> CpuView {
        CpuView { cr4: self.vmcs().read(fields::GUEST_CR4), xcr0: self.vcpu.xcr0 }
    }

    /// What decides whether an event can be injected now.
    pub fn readiness(&self) -> Readiness {
        Readiness::read(self.vmcs())
    }

    /// Has the next entry deliver an event. Whether it may is [`Active::readiness`]'s word.
    #[inline]
    pub fn inject(&mut self, event: Event) {
        event.inject(self.vmcs_mut());
    }

    /// One VM entry and the exit from it, decoded. Counts it, notes it in the event ring, and puts an event back whose
    /// delivery it interrupted. Serves nobody: see [`serve_host`].
    ///
    /// # Errors
    /// VMfail: the guest was not entered.
    #[inline(never)]
    pub fn enter(&mut self) -> Result<Exit, VmFail> {
        let reason = self.enter_undecoded()?;
        Ok(self.decode(reason))
    }

    /// As [`Active::enter`], but for the decoding, and for an event whose delivery the exit has interrupted:
    /// [`Active::decode`] has to come next, unless the reason is that of an instruction.
    ///
    /// # Errors
    /// As there.
    #[inline(always)]
    pub fn enter_undecoded(&mut self) -> Result<Reason, VmFail> {
        let Active { vcpu, loaded } = self;
        let (before, left) = vcpu.last_exit;
        if let Some(cycles) = vcpu.cycles.get_mut(usize::from(before)) {
            *cycles = cycles.wrapping_add(cpu::tsc().wrapping_sub(left));
        }
        vmenter::enter(loaded.vmcs_mut(), &mut vcpu.registers, vcpu.launched)?;
        vcpu.launched = true;
        let vmcs = loaded.vmcs_mut();
        let reason = Reason(vmcs.read(fields::EXIT_REASON));
        vcpu.exits = vcpu.exits.wrapping_add(1);
        let now = cpu::tsc();
        vcpu.last_exit = (reason.basic(), now);
        if let Some(count) = vcpu.counts.get_mut(usize::from(reason.basic())) {
            *count = count.wrapping_add(1);
        }
        let rip = vmcs.read(fields::GUEST_RIP);
        vcpu.events.record(now, Noted::VmExit { reason: reason.basic(), rip });
        Ok(reason)
    }

    /// Decodes the exit from [`Active::enter_undecoded`], and puts an event back whose delivery it has interrupted.
    #[inline(always)]
    pub fn decode(&mut self, reason: Reason) -> Exit {
        let vmcs = self.loaded.vmcs_mut();
        let exit = Exit::decode_reason(reason, vmcs);
        if !reason.entry_failed() {
            settle_delivery(vmcs, &exit);
        }
        exit
    }

    /// [`Active::decode`] of an exit for an EPT violation.
    #[inline(always)]
    pub fn ept_violation(&mut self) -> EptViolation {
        let vmcs = self.loaded.vmcs_mut();
        let violation = EptViolation::of(vmcs);
        settle_delivery(vmcs, &Exit::EptViolation(violation));
        violation
    }

    /// Moves RIP past the instruction that exited, as if it had been executed: see [`Active::retire_to`].
    #[inline]
    pub fn skip_instruction(&mut self) {
        let length = u64::from(self.vmcs().read(fields::EXIT_INSTRUCTION_LENGTH));
        let rip = self.vmcs().read(fields::GUEST_RIP);
        let next = rip.wrapping_add(length);
        // Outside 64-bit code RIP has 32 bits: that is to be asked for only where it shows.
        if (rip ^ next) >> 32 != 0 && self.vmcs().read(fields::GUEST_CS_ACCESS_RIGHTS) & 1 << 13 == 0 {
            return self.retire_to(next & 0xffff_ffff);
        }
        self.retire_to(next);
    }

    /// An instruction has been emulated; the next one is at `rip`. Shadows end, RF ends, and a single-stepping guest gets its
    /// trap.
    #[inline]
    pub fn retire_to(&mut self, rip: u64) {
        self.count_emulated();
        self.vmcs_mut().write(fields::GUEST_RIP, rip);
        self.end_shadows();
        let rflags = self.vmcs().read(fields::GUEST_RFLAGS);
        if rflags & (bits::RFLAGS_TF | RFLAGS_RF) != 0 {
            self.after_flagged_instruction(rflags);
        }
    }

    /// The shadow of STI or MOV SS ends: an instruction has been executed.
    #[inline]
    pub fn end_shadows(&mut self) {
        const SHADOWS: u32 = Interruptibility::STI | Interruptibility::MOV_SS;
        let state = self.vmcs().read(fields::GUEST_INTERRUPTIBILITY);
        if state & SHADOWS != 0 {
            self.vmcs_mut().write(fields::GUEST_INTERRUPTIBILITY, state & !SHADOWS);
        }
    }

    /// The instruction that was skipped had TF or RF set: RF ends, TF makes a trap.
    #[cold]
    fn after_flagged_instruction(&mut self, rflags: u64) {
        self.vmcs_mut().write(fields::GUEST_RFLAGS, rflags & !RFLAGS_RF);
        if rflags & bits::RFLAGS_TF != 0 {
            self.pend_single_step();
        }
    }

    /// A single-step trap is due, unless only branches are stepped.
    pub fn pend_single_step(&mut self) {
        const BTF: u64 = 1 << 1;
        const PENDING_STEP: u64 = 1 << 14;
        if self.vmcs().read(fields::GUEST_DEBUGCTL) & BTF == 0 {
            let pending = self.vmcs().read(fields::GUEST_PENDING_DEBUG);
            self.vmcs_mut().write(fields::GUEST_PENDING_DEBUG, pending | PENDING_STEP);
        }
    }
}

impl Vcpu {
    fn switch(&mut self, control: Control, on: bool) -> Result<(), Refusal> {
        match on {
            true => self.controls.set(control, &self.caps),
            false => self.controls.clear(control, &self.caps),
        }
    }
}

#[cold]
fn repeat_delivery(vmcs: &mut CurrentVmcs, event: Event) {
    if event.is_repeated() {
        inject::reinject(event, vmcs);
    }
}

/// Puts an interrupted delivery back, and blocks NMIs again where an IRET will be repeated.
#[inline]
fn settle_delivery(vmcs: &mut CurrentVmcs, exit: &Exit) {
    let delivering = inject::interrupted_delivery(vmcs);
    if let Some(event) = delivering {
        repeat_delivery(vmcs, event);
    }
    let (unblocked, vector) = match exit {
        Exit::EptViolation(violation) => (violation.nmi_unblocked, None),
        Exit::Exception(exception) => (exception.nmi_unblocked, Some(exception.event.vector)),
        _ => return,
    };
    if inject::block_nmis_again(unblocked, vector, delivering) {
        let state = vmcs.read(fields::GUEST_INTERRUPTIBILITY);
        vmcs.write(fields::GUEST_INTERRUPTIBILITY, state | Interruptibility::NMI);
    }
}
