//! Event injection: the words of the VM-entry fields, what may be injected when, and re-injection of an event whose
//! delivery an exit interrupted (SDM vol. 3C, "VM-Entry Controls for Event Injection", "Information for VM Exits During
//! Event Delivery").

use crate::fields::{self, VmcsRead, VmcsWrite};
use core::fmt;

/// The kind of an event, as bits 10:8 of the interruption-information fields say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EventKind {
    /// External interrupt.
    ExternalInterrupt = 0,
    /// Non-maskable interrupt.
    Nmi = 2,
    /// Hardware exception.
    HardwareException = 3,
    /// Software interrupt (INT n).
    SoftwareInterrupt = 4,
    /// Privileged software exception (INT1).
    PrivilegedSoftwareException = 5,
    /// Software exception (INT3 and INTO).
    SoftwareException = 6,
    /// Other event: vector 0 is a pending monitor-trap-flag exit.
    Other = 7,
}

impl EventKind {
    const fn from_bits(bits: u32) -> Option<Self> {
        match bits {
            0 => Some(Self::ExternalInterrupt),
            2 => Some(Self::Nmi),
            3 => Some(Self::HardwareException),
            4 => Some(Self::SoftwareInterrupt),
            5 => Some(Self::PrivilegedSoftwareException),
            6 => Some(Self::SoftwareException),
            7 => Some(Self::Other),
            _ => None,
        }
    }

    /// The event comes from an instruction, which its delivery skips.
    pub const fn is_software(self) -> bool {
        matches!(self, Self::SoftwareInterrupt | Self::PrivilegedSoftwareException | Self::SoftwareException)
    }
}

const VALID: u32 = 1 << 31;
const ERROR_CODE_VALID: u32 = 1 << 11;

/// An event: to be injected, or seen in an interruption-information field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The vector.
    pub vector: u8,
    /// The kind.
    pub kind: EventKind,
    /// The error code that goes on the stack.
    pub error_code: Option<u32>,
    /// Software events: length of the instruction, bytes. 0 for the others.
    pub length: u8,
}

impl Event {
    /// An external interrupt.
    pub const fn interrupt(vector: u8) -> Self {
        Self { vector, kind: EventKind::ExternalInterrupt, error_code: None, length: 0 }
    }
    /// An NMI.
    pub const fn nmi() -> Self {
        Self { vector: 2, kind: EventKind::Nmi, error_code: None, length: 0 }
    }
    /// A hardware exception with an error code.
    pub const fn exception_with_code(vector: u8, error_code: u32) -> Self {
        Self { vector, kind: EventKind::HardwareException, error_code: Some(error_code), length: 0 }
    }
    /// A hardware exception without an error code.
    pub const fn exception(vector: u8) -> Self {
        Self { vector, kind: EventKind::HardwareException, error_code: None, length: 0 }
    }
    /// #UD.
    pub const fn invalid_opcode() -> Self {
        Self::exception(6)
    }
    /// #GP(0).
    pub const fn general_protection() -> Self {
        Self::exception_with_code(13, 0)
    }
    /// A monitor-trap-flag exit right after the entry, whatever the control says.
    pub const fn pending_monitor_trap() -> Self {
        Self { vector: 0, kind: EventKind::Other, error_code: None, length: 0 }
    }

    /// From the words of an interruption-information field; error code and instruction length are fetched only if the
    /// event has them. None if the field is not valid.
    pub fn from_words(
        info: u32,
        error_code: impl FnOnce() -> u32,
        length: impl FnOnce() -> u32,
    ) -> Option<Self> {
        if info & VALID == 0 {
            return None;
        }
        let kind = EventKind::from_bits((info >> 8) & 7)?;
        Some(Self {
            vector: info as u8,
            kind,
            error_code: (info & ERROR_CODE_VALID != 0).then(error_code),
            length: if kind.is_software() { length() as u8 } else { 0 },
        })
    }

    /// The next entry has to inject the event if an exit has interrupted its delivery. An INT n, INT3 or INT1 is not injected:
    /// RIP is still at it, so the guest executes it again. Injecting it would deliver the event as well, but the instruction
    /// would never retire, and a host with one EPT violation more would count one instruction less.
    #[inline]
    pub const fn is_repeated(&self) -> bool {
        !self.kind.is_software()
    }

    /// The word for the VM-entry interruption-information field.
    pub const fn info(self) -> u32 {
        let code = if self.error_code.is_some() { ERROR_CODE_VALID } else { 0 };
        VALID | code | (self.kind as u32) << 8 | self.vector as u32
    }

    /// Has the next VM entry deliver the event.
    #[inline]
    pub fn inject(self, vmcs: &mut impl VmcsWrite) {
        vmcs.write(fields::ENTRY_INTERRUPTION_INFO, self.info());
        if let Some(code) = self.error_code {
            vmcs.write(fields::ENTRY_EXCEPTION_ERROR_CODE, code);
        }
        if self.kind.is_software() {
            vmcs.write(fields::ENTRY_INSTRUCTION_LENGTH, u32::from(self.length));
        }
    }

    /// Checks the event by itself against the SDM's rules for the field ("VM-Entry Control Fields").
    ///
    /// # Errors
    /// What the processor would not accept.
    pub fn check(
        self,
        protected_mode: bool,
        zero_length: bool,
        any_error_code: bool,
    ) -> Result<(), BadEvent> {
        let deserves_code = matches!(self.vector, 8 | 10 | 11 | 12 | 13 | 14 | 17 | 21);
        match self.kind {
            EventKind::Nmi if self.vector != 2 => return Err(BadEvent::NmiVector),
            EventKind::HardwareException if self.vector > 31 => return Err(BadEvent::ExceptionVector),
            EventKind::Other if self.vector != 0 => return Err(BadEvent::OtherVector),
            _ => {}
        }
        if self.error_code.is_some()
            && (self.kind != EventKind::HardwareException
                || !protected_mode
                || !deserves_code && !any_error_code)
        {
            return Err(BadEvent::ErrorCode);
        }
        let hardware_in_protected_mode = self.kind == EventKind::HardwareException && protected_mode;
        if self.error_code.is_none() && hardware_in_protected_mode && deserves_code && !any_error_code {
            return Err(BadEvent::NoErrorCode);
        }
        // The error code is 16 bits wide, but #PF may set bit 31 (SGX) on processors that have it: bits 30:16 stay 0.
        if self.error_code.is_some_and(|code| code & 0x7fff_0000 != 0) {
            return Err(BadEvent::ErrorCode);
        }
        let shortest = if zero_length { 0 } else { 1 };
        if self.kind.is_software() && !(shortest..=15).contains(&self.length) {
            return Err(BadEvent::Length);
        }
        Ok(())
    }
}

/// A word that the processor would not accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadEvent {
    /// An NMI has vector 2.
    NmiVector,
    /// An exception has a vector below 32.
    ExceptionVector,
    /// The only other event is vector 0, a pending monitor-trap-flag exit.
    OtherVector,
    /// An error code where there is none, or one out of range.
    ErrorCode,
    /// No error code where there must be one.
    NoErrorCode,
    /// An instruction length that no instruction has.
    Length,
}

impl fmt::Display for BadEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NmiVector => "an NMI whose vector is not 2",
            Self::ExceptionVector => "an exception whose vector is above 31",
            Self::OtherVector => "an \"other event\" whose vector is not 0",
            Self::ErrorCode => "an error code that this event cannot have",
            Self::NoErrorCode => "no error code for an exception that has one",
            Self::Length => "an instruction length out of range",
        })
    }
}

/// The guest's interruptibility state (SDM, "Guest Non-Register State").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Interruptibility(pub u32);

impl Interruptibility {
    /// Blocking by STI.
    pub const STI: u32 = 1 << 0;
    /// Blocking by MOV SS or POP SS.
    pub const MOV_SS: u32 = 1 << 1;
    /// Blocking by SMI.
    pub const SMI: u32 = 1 << 2;
    /// Blocking by NMI (virtual-NMI blocking, with the control "virtual NMIs").
    pub const NMI: u32 = 1 << 3;
    /// Enclave interruption.
    pub const ENCLAVE: u32 = 1 << 4;

    /// In the shadow of STI.
    pub const fn by_sti(self) -> bool {
        self.0 & Self::STI != 0
    }
    /// In the shadow of MOV SS.
    pub const fn by_mov_ss(self) -> bool {
        self.0 & Self::MOV_SS != 0
    }
    /// NMIs are blocked.
    pub const fn by_nmi(self) -> bool {
        self.0 & Self::NMI != 0
    }
}

/// The guest's activity state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum Activity {
    /// Executing instructions.
    #[default]
    Active = 0,
    /// Halted by HLT.
    Halted = 1,
    /// Shut down by a triple fault.
    Shutdown = 2,
    /// Waiting for a start-up IPI.
    WaitForSipi = 3,
}

impl Activity {
    /// From the VMCS field; None for a number the SDM does not define.
    pub const fn from_word(word: u32) -> Option<Self> {
        match word {
            0 => Some(Self::Active),
            1 => Some(Self::Halted),
            2 => Some(Self::Shutdown),
            3 => Some(Self::WaitForSipi),
            _ => None,
        }
    }
}

/// Why an event must wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// RFLAGS.IF is 0.
    InterruptFlag,
    /// In the shadow of STI.
    Sti,
    /// In the shadow of MOV SS or POP SS.
    MovSs,
    /// An NMI is being handled.
    Nmi,
    /// The activity state does not take this event.
    Activity(Activity),
    /// Another event is delivered by the next entry already.
    Pending,
}

/// RFLAGS.IF.
pub const RFLAGS_IF: u64 = 1 << 9;

/// What decides whether an event can be injected now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Guest RFLAGS.
    pub rflags: u64,
    /// Interruptibility state.
    pub interruptibility: Interruptibility,
    /// Activity state.
    pub activity: Activity,
    /// An event is in the VM-entry field already.
    pub pending: bool,
}

impl Readiness {
    /// From the current VMCS.
    pub fn read(vmcs: &impl VmcsRead) -> Self {
        Self {
            rflags: vmcs.read(fields::GUEST_RFLAGS),
            interruptibility: Interruptibility(vmcs.read(fields::GUEST_INTERRUPTIBILITY)),
            activity: Activity::from_word(vmcs.read(fields::GUEST_ACTIVITY)).unwrap_or(Activity::WaitForSipi),
            pending: vmcs.read(fields::ENTRY_INTERRUPTION_INFO) & VALID != 0,
        }
    }

    /// Whether the event can be injected by the next entry.
    ///
    /// # Errors
    /// Why it must wait.
    pub fn check(self, event: Event) -> Result<(), Blocked> {
        if self.pending {
            return Err(Blocked::Pending);
        }
        match event.kind {
            EventKind::ExternalInterrupt => self.check_interrupt()?,
            EventKind::Nmi => self.check_nmi()?,
            _ => {}
        }
        self.check_activity(event)
    }

    fn check_interrupt(self) -> Result<(), Blocked> {
        if self.rflags & RFLAGS_IF == 0 {
            return Err(Blocked::InterruptFlag);
        }
        if self.interruptibility.by_sti() {
            return Err(Blocked::Sti);
        }
        if self.interruptibility.by_mov_ss() { Err(Blocked::MovSs) } else { Ok(()) }
    }

    /// STI blocks NMIs on some processors (SDM, "Checks on Guest Non-Register State"), so it counts on all.
    fn check_nmi(self) -> Result<(), Blocked> {
        if self.interruptibility.by_nmi() {
            return Err(Blocked::Nmi);
        }
        if self.interruptibility.by_sti() {
            return Err(Blocked::Sti);
        }
        if self.interruptibility.by_mov_ss() { Err(Blocked::MovSs) } else { Ok(()) }
    }

    fn check_activity(self, event: Event) -> Result<(), Blocked> {
        let exception = event.kind == EventKind::HardwareException;
        let taken = match self.activity {
            Activity::Active => true,
            Activity::Halted => {
                matches!(event.kind, EventKind::ExternalInterrupt | EventKind::Nmi)
                    || event == Event::pending_monitor_trap()
                    || exception && matches!(event.vector, 1 | 18)
            }
            Activity::Shutdown => event.kind == EventKind::Nmi || exception && event.vector == 18,
            Activity::WaitForSipi => false,
        };
        if taken { Ok(()) } else { Err(Blocked::Activity(self.activity)) }
    }
}

/// The event whose delivery the exit interrupted. See [`delivery_to_repeat`] for what is to be done about it.
#[inline]
pub fn interrupted_delivery(vmcs: &impl VmcsRead) -> Option<Event> {
    let info = vmcs.read(fields::IDT_VECTORING_INFO);
    if info & VALID == 0 {
        return None;
    }
    let error_code = || vmcs.read(fields::IDT_VECTORING_ERROR_CODE);
    Event::from_words(info, error_code, || vmcs.read(fields::EXIT_INSTRUCTION_LENGTH))
}

/// The event that the next entry has to inject because the exit interrupted its delivery: see [`Event::is_repeated`].
#[inline]
pub fn delivery_to_repeat(vmcs: &impl VmcsRead) -> Option<Event> {
    interrupted_delivery(vmcs).filter(|event| event.is_repeated())
}

/// What becomes of an exception that comes up while another event is being delivered: the exception itself, a double
/// fault, or (None) a triple fault (SDM vol. 3A, table "Conditions for Generating a Double Fault").
pub fn combine(delivering: Option<Event>, exception: Event) -> Option<Event> {
    #[derive(PartialEq)]
    enum Class {
        Benign,
        Contributory,
        PageFault,
        DoubleFault,
    }
    let class = |event: Event| match (event.kind, event.vector) {
        (EventKind::HardwareException, 0 | 10..=13) => Class::Contributory,
        (EventKind::HardwareException, 14) => Class::PageFault,
        (EventKind::HardwareException, 8) => Class::DoubleFault,
        _ => Class::Benign,
    };
    let first = delivering.map_or(Class::Benign, class);
    let second = class(exception);
    match (first, second) {
        (_, Class::Benign) | (Class::Benign, _) => Some(exception),
        (Class::Contributory, Class::PageFault) => Some(exception),
        (Class::DoubleFault, _) => None,
        _ => Some(Event::exception_with_code(8, 0)),
    }
}

/// Whether NMIs must be blocked again before the guest goes on, after an exit that carries the mark "NMI unblocking due
/// to IRET": the IRET will be executed again and must find NMIs blocked. Not so for a double fault, and not when the
/// exit interrupted a delivery (SDM, "Information for VM Exits Due to Vectored Events").
pub fn block_nmis_again(
    nmi_unblocked: bool,
    exception_vector: Option<u8>,
    delivering: Option<Event>,
) -> bool {
    nmi_unblocked && exception_vector != Some(8) && delivering.is_none()
}

/// Puts an interrupted delivery back. An NMI whose delivery was interrupted has set virtual-NMI blocking already, and its
/// injection needs it clear.
pub fn reinject(event: Event, vmcs: &mut impl VmcsWrite) {
    if event.kind == EventKind::Nmi {
        let state = vmcs.read(fields::GUEST_INTERRUPTIBILITY);
        vmcs.write(fields::GUEST_INTERRUPTIBILITY, state & !Interruptibility::NMI);
    }
    event.inject(vmcs);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::FakeVmcs;
    use proptest::prelude::*;

    const READY: Readiness = Readiness {
        rflags: 0x202,
        interruptibility: Interruptibility(0),
        activity: Activity::Active,
        pending: false,
    };

    #[test]
    fn words_of_common_events() {
        let table = [
            (Event::interrupt(0x20), 0x8000_0020),
            (Event::nmi(), 0x8000_0202),
            (Event::invalid_opcode(), 0x8000_0306),
            (Event::general_protection(), 0x8000_0b0d),
            (Event::exception_with_code(14, 2), 0x8000_0b0e),
            (Event::pending_monitor_trap(), 0x8000_0700),
            (
                Event { vector: 0x80, kind: EventKind::SoftwareInterrupt, error_code: None, length: 2 },
                0x8000_0480,
            ),
            (
                Event {
                    vector: 1,
                    kind: EventKind::PrivilegedSoftwareException,
                    error_code: None,
                    length: 1,
                },
                0x8000_0501,
            ),
            (
                Event { vector: 3, kind: EventKind::SoftwareException, error_code: None, length: 1 },
                0x8000_0603,
            ),
        ];
        for (event, word) in table {
            assert_eq!(event.info(), word, "{event:?}");
            assert_eq!(event.check(true, false, false), Ok(()), "{event:?}");
        }
    }

    #[test]
    fn events_that_the_processor_would_not_accept() {
        let nmi = Event { vector: 3, ..Event::nmi() };
        assert_eq!(nmi.check(true, false, false), Err(BadEvent::NmiVector));
        assert_eq!(Event::exception(32).check(true, false, false), Err(BadEvent::ExceptionVector));
        assert_eq!(Event::exception(13).check(true, false, false), Err(BadEvent::NoErrorCode));
        assert_eq!(Event::exception(13).check(true, false, true), Ok(()));
        assert_eq!(Event::exception(13).check(false, false, false), Ok(()), "real mode pushes no code");
        assert_eq!(Event::general_protection().check(false, false, false), Err(BadEvent::ErrorCode));
        assert_eq!(Event::exception_with_code(6, 0).check(true, false, false), Err(BadEvent::ErrorCode));
        assert_eq!(
            Event::exception_with_code(13, 0x1_0000).check(true, false, true),
            Err(BadEvent::ErrorCode)
        );
        let int3 = Event { vector: 3, kind: EventKind::SoftwareException, error_code: None, length: 0 };
        assert_eq!(int3.check(true, false, false), Err(BadEvent::Length));
        assert_eq!(int3.check(true, true, false), Ok(()));
        assert_eq!(Event { length: 16, ..int3 }.check(true, true, false), Err(BadEvent::Length));
        let other = Event { vector: 1, ..Event::pending_monitor_trap() };
        assert_eq!(other.check(true, true, false), Err(BadEvent::OtherVector));
    }

    #[test]
    fn an_external_interrupt_waits_for_the_flag_and_the_shadows() {
        let interrupt = Event::interrupt(0x30);
        assert_eq!(READY.check(interrupt), Ok(()));
        assert_eq!(Readiness { rflags: 2, ..READY }.check(interrupt), Err(Blocked::InterruptFlag));
        let shadow = |bits| Readiness { interruptibility: Interruptibility(bits), ..READY };
        assert_eq!(shadow(Interruptibility::STI).check(interrupt), Err(Blocked::Sti));
        assert_eq!(shadow(Interruptibility::MOV_SS).check(interrupt), Err(Blocked::MovSs));
        assert_eq!(
            shadow(Interruptibility::NMI).check(interrupt),
            Ok(()),
            "NMI blocking is not for interrupts"
        );
        assert_eq!(shadow(Interruptibility::NMI).check(Event::nmi()), Err(Blocked::Nmi));
        assert_eq!(Readiness { pending: true, ..READY }.check(interrupt), Err(Blocked::Pending));
        assert_eq!(Readiness { rflags: 2, ..READY }.check(Event::nmi()), Ok(()));
        assert_eq!(shadow(Interruptibility::STI).check(Event::general_protection()), Ok(()));
    }

    #[test]
    fn activity_states_take_what_the_manual_lets_them() {
        let state = |activity| Readiness { activity, ..READY };
        let halted = state(Activity::Halted);
        for event in
            [Event::interrupt(0x30), Event::nmi(), Event::exception(1), Event::pending_monitor_trap()]
        {
            assert_eq!(halted.check(event), Ok(()), "{event:?}");
        }
        assert_eq!(halted.check(Event::general_protection()), Err(Blocked::Activity(Activity::Halted)));
        assert_eq!(state(Activity::Shutdown).check(Event::nmi()), Ok(()));
        assert!(state(Activity::Shutdown).check(Event::interrupt(0x30)).is_err());
        assert!(state(Activity::WaitForSipi).check(Event::nmi()).is_err());
    }

    fn interrupted(info: u32, error_code: u32, length: u32) -> FakeVmcs {
        let mut vmcs = FakeVmcs::default();
        vmcs.set(fields::IDT_VECTORING_INFO.encoding(), u64::from(info));
        vmcs.set(fields::IDT_VECTORING_ERROR_CODE.encoding(), u64::from(error_code));
        vmcs.set(fields::EXIT_INSTRUCTION_LENGTH.encoding(), u64::from(length));
        vmcs.set(fields::GUEST_INTERRUPTIBILITY.encoding(), u64::from(Interruptibility::NMI));
        vmcs
    }

    #[test]
    fn an_interrupted_delivery_is_injected_again_as_it_was() {
        for (info, code, length) in [
            (0x8000_0020, None, None),
            (0x8000_0b0e, Some(6), None),
            (0x8000_0480, None, Some(2)),
            (0x8000_0603, None, Some(1)),
        ] {
            let mut vmcs = interrupted(info, 6, length.unwrap_or(9));
            let event = interrupted_delivery(&vmcs).unwrap();
            assert_eq!(
                delivery_to_repeat(&vmcs).is_some(),
                length.is_none(),
                "instructions are executed again"
            );
            reinject(event, &mut vmcs);
            assert_eq!(vmcs.read(fields::ENTRY_INTERRUPTION_INFO), info);
            assert_eq!(vmcs.try_read(fields::ENTRY_EXCEPTION_ERROR_CODE).ok(), code);
            assert_eq!(vmcs.try_read(fields::ENTRY_INSTRUCTION_LENGTH).ok(), length);
            assert_eq!(vmcs.read(fields::GUEST_INTERRUPTIBILITY), Interruptibility::NMI, "untouched");
        }
        assert_eq!(interrupted_delivery(&interrupted(0x20, 0, 0)), None, "the valid bit is 0");
    }

    #[test]
    fn an_interrupted_nmi_is_injected_again_with_nmis_unblocked() {
        let mut vmcs = interrupted(0x8000_0202, 0, 0);
        reinject(interrupted_delivery(&vmcs).unwrap(), &mut vmcs);
        assert_eq!(vmcs.read(fields::GUEST_INTERRUPTIBILITY), 0);
    }

    #[test]
    fn faults_during_faults_become_double_and_triple_faults() {
        let fault = |vector| Event::exception_with_code(vector, 0);
        let double = Some(Event::exception_with_code(8, 0));
        let table = [
            (None, fault(13), Some(fault(13))),
            (Some(Event::interrupt(0x30)), fault(13), Some(fault(13))),
            (Some(Event::nmi()), fault(14), Some(fault(14))),
            (Some(fault(13)), Event::invalid_opcode(), Some(Event::invalid_opcode())),
            (Some(fault(13)), fault(14), Some(fault(14))),
            (Some(fault(13)), fault(11), double),
            (Some(fault(14)), fault(14), double),
            (Some(fault(14)), fault(13), double),
            (Some(fault(8)), fault(13), None),
            (Some(fault(8)), fault(14), None),
            (Some(fault(8)), Event::exception(1), Some(Event::exception(1))),
        ];
        for (first, second, expected) in table {
            assert_eq!(combine(first, second), expected, "{first:?} then {second:?}");
        }
    }

    #[test]
    fn nmis_are_blocked_again_only_if_the_iret_comes_again() {
        assert!(block_nmis_again(true, Some(14), None));
        assert!(block_nmis_again(true, None, None), "an EPT violation");
        assert!(!block_nmis_again(true, Some(8), None), "a double fault");
        assert!(!block_nmis_again(true, Some(14), Some(Event::nmi())));
        assert!(!block_nmis_again(false, Some(14), None));
    }

    proptest! {
        /// What is written for an event reads back as the event.
        #[test]
        fn words_round_trip(vector: u8, kind in 0u32..8, code: Option<u16>, length in 1u8..16) {
            let Some(kind) = EventKind::from_bits(kind) else { return Ok(()) };
            let length = if kind.is_software() { length } else { 0 };
            let event = Event { vector, kind, error_code: code.map(u32::from), length };
            let back = Event::from_words(event.info(), || event.error_code.unwrap(), || u32::from(length));
            prop_assert_eq!(back, Some(event));
        }
    }
}
