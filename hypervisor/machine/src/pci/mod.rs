//! The guest's PCI bus: host bridge, ISA bridge, and slots with a virtio device each.
//!
//! Whoever owns this passes on accesses to the configuration ports and to what [`Pci::find_io`] and [`Pci::find_memory`] answer for, calls
//! [`Pci::advance`] at [`Pci::deadline`], and takes what is to be signalled whenever [`Pci::has_signals`] says so.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

pub mod bridges;
pub mod function;
pub mod header;
pub mod msix;

use crate::context::{Context, Instant};
use crate::devices::BadState;
use crate::ram::Ram;
use crate::virtio::block::Block;
use crate::virtio::console::Console;
use crate::virtio::net::{Mac, Net, Received};
use crate::virtio::rng::Rng;
use crate::virtio::{Buffers, Model, console, net};
use bridges::Bridge;
use function::{Function, MEMORY, MEMORY_SIZE, PORTS, PORTS_SIZE, WINDOW_DATA};
use header::{Header, REGISTERS, lanes, register};

/// Most devices behind the two bridges.
pub const SLOTS: usize = 8;
/// Device number of the first of them.
pub const FIRST_DEVICE: u8 = 2;
/// The port of the address of an access to configuration space (mechanism #1).
pub const ADDRESS_PORT: u16 = 0xcf8;
/// The first of the four ports of the data.
pub const DATA_PORT: u16 = 0xcfc;

/// Where [`Pci::assign`] puts ports, a step of [`PORTS_SIZE`] each.
pub const ASSIGNED_PORTS: u16 = 0xc000;
/// Where [`Pci::assign`] puts memory.
pub const ASSIGNED_MEMORY: u32 = 0xe000_0000;
/// Bytes from one device's memory to the next one's.
const MEMORY_STEP: u32 = 0x1_0000;
/// The ISA interrupts that [`Pci::assign`] routes PIRQA to PIRQD to, as SeaBIOS does.
pub const ASSIGNED_ROUTES: [u8; 4] = [10, 10, 11, 11];
/// The first of four inputs of the I/O APIC that the interrupt pins lead to: pin A of device d to `FIRST_GSI + d % 4`.
pub const FIRST_GSI: u8 = 16;

/// Address bit: the data ports mean configuration space.
const ENABLE: u32 = 1 << 31;
/// The bits of the address that exist.
const ADDRESS_BITS: u32 = 0x80ff_fffc;

/// A device to be put into the next slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// A network card. They are numbered in this order from 0: [`Pci::receive_frame`].
    Net {
        /// Its address.
        mac: Mac,
    },
    /// A disk.
    Block {
        /// Which one of the [`Context`]'s disks.
        disk: u8,
        /// Its sectors of 512 bytes.
        sectors: u64,
        /// The guest cannot write.
        read_only: bool,
        /// Its name for the guest, filled up with zeros.
        id: [u8; crate::virtio::block::ID],
    },
    /// A source of random bytes.
    Rng {
        /// What they depend on.
        seed: [u8; 32],
    },
    /// A console.
    Console {
        /// Which side console its output goes to.
        port: u8,
    },
}

/// A place in a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The slot.
    pub slot: u8,
    /// The base address register.
    pub bar: u8,
    /// Bytes from its beginning.
    pub offset: u32,
}

/// What is to be told to the interrupt controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// A line has changed.
    Line {
        /// The input: 16 to 19 of the I/O APIC alone, below 16 an ISA interrupt by the ISA bridge's routing.
        gsi: u8,
        /// Its level.
        level: bool,
    },
    /// A message.
    Message {
        /// Where it is written.
        address: u64,
        /// What is written.
        data: u32,
    },
}

/// A function as an operator wants to see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Device number on the bus.
    pub device: u8,
    /// Vendor.
    pub vendor: u16,
    /// Device.
    pub id: u16,
    /// Class code.
    pub class: u32,
    /// Its ports, if it answers any.
    pub ports: Option<u16>,
    /// Its memory, if it answers any.
    pub memory: Option<u32>,
    /// Device status of virtio; `None` for bridges.
    pub status: Option<u8>,
}

/// Everything about the bus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The configuration address.
    pub address: u32,
    /// The host bridge.
    pub host: Header,
    /// The ISA bridge.
    pub isa: Header,
    /// The slots.
    pub slots: Vec<function::State>,
    /// The lines that are driven, as told last: a bit for each input of the I/O APIC.
    pub lines: u32,
}

/// The bus.
#[derive(Clone, Debug)]
pub struct Pci {
    address: u32,
    host: Header,
    isa: Header,
    slots: Vec<Function>,
    /// The lines as told last.
    lines: u32,
    /// The lines as they are. Follows from the rest.
    levels: u32,
    /// Slots that drive their interrupt pin, a bit each. Follows from the rest.
    pins: u8,
    /// Slots with messages to be sent, a bit each. Follows from the rest.
    messages: u8,
    /// The slot, plus one, whose ports have these upper eight bits. Follows from the rest.
    ports: [u8; 256],
    /// Where each slot's memory begins; 0: nowhere. Follows from the rest.
    memory: [u32; SLOTS],
    /// When work goes on. Follows from the rest.
    resume: Option<Instant>,
    buffers: Buffers,
}

impl Pci {
    /// A bus with these devices in its slots; no more than [`SLOTS`].
    ///
    /// # Errors
    /// [`BadState`] if there are more, or a disk cannot be.
    pub fn new(devices: &[Device]) -> Result<Self, BadState> {
        let mut nets = 0..;
        let slots = devices.iter().map(|device| Function::new(model(device, &mut nets)).state).collect();
        Self::restore(State {
            address: 0,
            host: Bridge::Host.reset(),
            isa: Bridge::Isa.reset(),
            slots,
            lines: 0,
        })
    }

    /// The state.
    pub fn save(&self) -> State {
        State {
            address: self.address,
            host: self.host.clone(),
            isa: self.isa.clone(),
            slots: self.slots.iter().map(|function| function.state.clone()).collect(),
            lines: self.lines,
        }
    }

    /// The state but for the slots: address, host bridge, ISA bridge, lines.
    pub(crate) const fn own_state(&self) -> (u32, &Header, &Header, u32) {
        (self.address, &self.host, &self.isa, self.lines)
    }

    /// The slots' states.
    pub(crate) fn slot_states(&self) -> impl Iterator<Item = &function::State> {
        self.slots.iter().map(|function| &function.state)
    }

    /// The bus that was saved.
    ///
    /// # Errors
    /// [`BadState`] for registers, rings or vectors that cannot be.
    pub fn restore(state: State) -> Result<Self, BadState> {
        if state.slots.len() > SLOTS {
            return Err(BadState("more PCI devices than slots"));
        }
        if state.address & !ADDRESS_BITS != 0 || state.lines >> 24 != 0 {
            return Err(BadState("a PCI register has bits that it has not"));
        }
        if !Bridge::Host.is_sound(&state.host) || !Bridge::Isa.is_sound(&state.isa) {
            return Err(BadState("a bridge's register has bits that it has not"));
        }
        let slots = state.slots.into_iter().map(Function::restore).collect::<Result<_, _>>()?;
        let mut pci = Self {
            address: state.address,
            host: state.host,
            isa: state.isa,
            slots,
            lines: state.lines,
            levels: 0,
            pins: 0,
            messages: 0,
            ports: [0; 256],
            memory: [0; SLOTS],
            resume: None,
            buffers: Buffers::new(),
        };
        pci.map();
        pci.look();
        Ok(pci)
    }

    /// As after power-on.
    pub fn reset(&mut self) {
        self.address = 0;
        self.host = Bridge::Host.reset();
        self.isa = Bridge::Isa.reset();
        for function in &mut self.slots {
            function.reset();
        }
        self.map();
        self.look();
    }

    /// Gives all devices addresses and interrupts, as firmware would, for a kernel that starts without.
    pub fn assign(&mut self) {
        Bridge::Isa.write(&mut self.isa, bridges::ROUTES, u32::from_le_bytes(ASSIGNED_ROUTES), !0);
        for (slot, function) in (0u8..).zip(&mut self.slots) {
            let ports = ASSIGNED_PORTS + u16::from(slot) * PORTS_SIZE as u16;
            let memory = ASSIGNED_MEMORY + u32::from(slot) * MEMORY_STEP;
            function.assign(ports, memory, ASSIGNED_ROUTES[pirq(slot)]);
        }
        self.map();
        self.look();
    }

    /// Reads the configuration ports CF8h to CFFh: 1, 2 or 4 bytes.
    pub fn read_port(&mut self, port: u16, size: u8) -> u32 {
        let all = lanes(0, size);
        match port {
            ADDRESS_PORT if size == 4 => self.address,
            DATA_PORT..=0xcff if self.address & ENABLE != 0 => {
                let byte = u32::from(port & 3);
                // What would lie beyond the register reads as ones.
                let beyond = !(!0u32 >> (8 * byte));
                (self.read_register() >> (8 * byte) | beyond) & all
            }
            _ => all,
        }
    }

    /// Writes the configuration ports CF8h to CFFh: 1, 2 or 4 bytes.
    pub fn write_port(&mut self, port: u16, size: u8, value: u32, ctx: &mut Context<'_, '_>) {
        match port {
            ADDRESS_PORT if size == 4 => self.address = value & ADDRESS_BITS,
            DATA_PORT..=0xcff if self.address & ENABLE != 0 => {
                let byte = u32::from(port & 3);
                self.write_register(value << (8 * byte), lanes(byte, size), ctx);
            }
            _ => {}
        }
    }

    /// Device and register that the address names; no function but 0 and no bus but 0 exists.
    const fn target(&self) -> (u8, usize) {
        let place = (self.address >> 8) as u16;
        let device = if place & 0xff07 == 0 { place >> 3 } else { 0xff };
        (device as u8, (self.address >> 2) as usize % REGISTERS)
    }

    fn read_register(&mut self) -> u32 {
        let (device, register) = self.target();
        match device {
            0 => self.host.get(register),
            bridges::ISA_DEVICE => self.isa.get(register),
            _ => {
                let slot = usize::from(device) - usize::from(FIRST_DEVICE);
                let Some(function) = self.slots.get_mut(slot) else { return !0 };
                if register != WINDOW_DATA {
                    return function.read_register(register);
                }
                let value = function.read_window();
                self.look_at(slot);
                value
            }
        }
    }

    fn write_register(&mut self, value: u32, lanes: u32, ctx: &mut Context<'_, '_>) {
        let (device, register) = self.target();
        match device {
            0 => Bridge::Host.write(&mut self.host, register, value, lanes),
            bridges::ISA_DEVICE => {
                Bridge::Isa.write(&mut self.isa, register, value, lanes);
                self.look();
            }
            _ => {
                let slot = usize::from(device) - usize::from(FIRST_DEVICE);
                let Some(function) = self.slots.get_mut(slot) else { return };
                if register == WINDOW_DATA {
                    function.write_window(value, ctx, &mut self.buffers);
                } else {
                    function.write_register(register, value, lanes, ctx, &mut self.buffers);
                }
                if matches!(register, register::COMMAND | register::BAR..register::SUBSYSTEM) {
                    self.map();
                }
                self.look_at(slot);
            }
        }
    }

    /// The device that answers this port.
    #[inline]
    pub fn find_io(&self, port: u16) -> Option<Place> {
        let slot = self.ports[usize::from(port >> 8)].checked_sub(1)?;
        Some(Place { slot, bar: PORTS, offset: u32::from(port) % PORTS_SIZE })
    }

    /// The device that answers this guest-physical address.
    #[inline]
    pub fn find_memory(&self, address: u64) -> Option<Place> {
        let address = u32::try_from(address).ok()?;
        let base = address & !(MEMORY_SIZE - 1);
        let slot = self.memory.iter().position(|&memory| memory == base && base != 0)?;
        Some(Place { slot: slot as u8, bar: MEMORY, offset: address % MEMORY_SIZE })
    }

    /// Reads 1, 2, 4 or 8 bytes of a device.
    #[inline]
    pub fn read(&mut self, place: Place, size: u8) -> u64 {
        let slot = usize::from(place.slot);
        let Some(function) = self.slots.get_mut(slot) else { return !0 };
        let value = function.read(place.bar, place.offset, size);
        self.look_at(slot);
        value
    }

    /// Writes 1, 2, 4 or 8 bytes of a device.
    #[inline]
    pub fn write(&mut self, place: Place, size: u8, value: u64, ctx: &mut Context<'_, '_>) {
        let slot = usize::from(place.slot);
        let Some(function) = self.slots.get_mut(slot) else { return };
        function.write(place.bar, place.offset, size, value, ctx, &mut self.buffers);
        self.look_at(slot);
    }

    /// Gives the network device of this number a frame from outside: whole, without FCS.
    pub fn receive_frame(&mut self, device: u8, frame: &[u8], ctx: &mut Context<'_, '_>) -> Received {
        let Some(slot) = self.net(device) else { return Received::Down };
        let function = &mut self.slots[slot];
        if !function.is_master() {
            return Received::Down;
        }
        let function::State { transport, model: Model::Net(net), .. } = &mut function.state else {
            return Received::Down;
        };
        let (received, events) = net::receive(net, transport, frame, ctx, &mut self.buffers.chain);
        self.raise(slot, events);
        received
    }

    /// Whether the network device of this number would let such a frame in. It costs no input to drop one that it does not.
    pub fn wants_frame(&self, device: u8, frame: &[u8]) -> bool {
        let Some(slot) = self.net(device) else { return false };
        let function = &self.slots[slot];
        let function::State { transport, model: Model::Net(net), .. } = &function.state else { return false };
        net.link && function.is_master() && transport.is_live() && net.wants(frame)
    }

    /// Whether the network device of this number has a buffer for a frame. Changes nothing.
    pub fn has_buffer(&self, device: u8, ram: &Ram<'_>) -> bool {
        self.net(device).is_some_and(|slot| self.slots[slot].state.transport.has_buffer(net::RECEIVE, ram))
    }

    /// False exactly when [`Pci::receive_frame`] would answer [`Received::NoBuffer`] for a frame of so many bytes that the
    /// guest wants ([`Pci::wants_frame`]). Changes nothing.
    pub fn has_buffer_for(&mut self, device: u8, bytes: usize, ram: &Ram<'_>) -> bool {
        let Some(slot) = self.net(device) else { return true };
        let function = &self.slots[slot];
        let function::State { transport, model: Model::Net(net), .. } = &function.state else { return true };
        !function.is_master() || net::has_buffer_for(net, transport, bytes, ram, &mut self.buffers.chain)
    }

    /// Asks the driver of the network device of this number to tell when it has a buffer: all that [`Pci::receive_frame`] does
    /// when it answers [`Received::NoBuffer`].
    pub fn ask_for_buffer(&mut self, device: u8, ctx: &mut Context<'_, '_>) {
        let Some(slot) = self.net(device) else { return };
        let function = &mut self.slots[slot];
        if !function.is_master() {
            return;
        }
        let function::State { transport, model: Model::Net(net), .. } = &mut function.state else { return };
        let events = net::ask_for_buffer(net, transport, ctx, &mut self.buffers.chain);
        self.raise(slot, events);
    }

    /// The link of the network device of this number goes up or down.
    pub fn set_link(&mut self, device: u8, up: bool) {
        let Some(slot) = self.net(device) else { return };
        let function::State { transport, model: Model::Net(net), .. } = &mut self.slots[slot].state else {
            return;
        };
        if net.link != up {
            net.link = up;
            let events = transport.configuration_changed();
            self.raise(slot, events);
        }
    }

    /// Gives the first console what was typed; answers how many bytes of it were taken.
    pub fn receive_console(&mut self, bytes: &[u8], ctx: &mut Context<'_, '_>) -> usize {
        let console = self.slots.iter().position(|one| matches!(one.state.model, Model::Console(_)));
        let Some(slot) = console.filter(|&slot| self.slots[slot].is_master()) else { return 0 };
        let transport = &mut self.slots[slot].state.transport;
        let (taken, events) = console::receive(transport, bytes, ctx, &mut self.buffers.chain);
        self.raise(slot, events);
        taken
    }

    /// When work that was put off goes on.
    #[inline]
    pub const fn deadline(&self) -> Option<Instant> {
        self.resume
    }

    /// Does the work that is due.
    pub fn advance(&mut self, ctx: &mut Context<'_, '_>) {
        if self.resume.is_none_or(|at| at > ctx.now) {
            return;
        }
        for slot in 0..self.slots.len() {
            let function = &mut self.slots[slot];
            if function.state.transport.resume.is_some_and(|at| at <= ctx.now) {
                function.work(ctx, &mut self.buffers);
                self.look_at(slot);
            }
        }
    }

    /// Whether there is something to be signalled.
    #[inline]
    pub const fn has_signals(&self) -> bool {
        self.messages != 0 || self.lines != self.levels
    }

    /// Takes what is to be signalled, one at a time until there is none.
    pub fn take_signal(&mut self) -> Option<Signal> {
        let changed = self.lines ^ self.levels;
        if changed != 0 {
            let gsi = changed.trailing_zeros();
            self.lines ^= 1 << gsi;
            return Some(Signal::Line { gsi: gsi as u8, level: self.lines & 1 << gsi != 0 });
        }
        while self.messages != 0 {
            let slot = self.messages.trailing_zeros() as usize;
            if let Some((address, data)) = self.slots.get_mut(slot).and_then(Function::take_message) {
                return Some(Signal::Message { address, data });
            }
            self.messages &= !(1 << slot);
        }
        None
    }

    /// All functions.
    pub fn functions(&self) -> impl Iterator<Item = Info> {
        let bridges = [(0, &self.host), (bridges::ISA_DEVICE, &self.isa)];
        let bridges = bridges.map(|(device, header)| info(device, header));
        let slots = (FIRST_DEVICE..).zip(&self.slots).map(|(device, function)| Info {
            ports: function.ports(),
            memory: function.memory(),
            status: Some(function.state.transport.status),
            ..info(device, &function.state.header)
        });
        bridges.into_iter().chain(slots)
    }

    /// The slot of the network device of this number.
    fn net(&self, device: u8) -> Option<usize> {
        let is = |one: &Function| matches!(&one.state.model, Model::Net(net) if net.device == device);
        self.slots.iter().position(is)
    }

    fn raise(&mut self, slot: usize, events: crate::virtio::transport::Events) {
        if let Some(function) = self.slots.get_mut(slot) {
            function.raise(events);
            self.look_at(slot);
        }
    }

    /// Finds again who answers which port and address.
    fn map(&mut self) {
        self.ports = [0; 256];
        self.memory = [0; SLOTS];
        // In a conflict the first slot wins.
        for (slot, function) in self.slots.iter().enumerate().rev() {
            if let Some(base) = function.ports() {
                self.ports[usize::from(base >> 8)] = slot as u8 + 1;
            }
            self.memory[slot] = function.memory().unwrap_or(0);
        }
    }

    /// Finds again what is to be signalled, and when work goes on.
    fn look(&mut self) {
        (self.messages, self.pins) = (0, 0);
        for (slot, function) in self.slots.iter().enumerate() {
            self.messages |= u8::from(function.ready() != 0) << slot;
            self.pins |= u8::from(function.line()) << slot;
        }
        self.resume = self.slots.iter().filter_map(|one| one.state.transport.resume).min();
        self.drive();
    }

    /// As [`Pci::look`], after something has happened to this slot alone.
    fn look_at(&mut self, slot: usize) {
        let Some(function) = self.slots.get(slot) else { return };
        let bit = 1 << slot;
        self.messages = self.messages & !bit | if function.ready() != 0 { bit } else { 0 };
        let pins = self.pins & !bit | if function.line() { bit } else { 0 };
        if self.resume != function.state.transport.resume {
            self.resume = self.slots.iter().filter_map(|one| one.state.transport.resume).min();
        }
        if self.pins != pins {
            self.pins = pins;
            self.drive();
        }
    }

    /// Finds the levels of all lines again.
    fn drive(&mut self) {
        self.levels = 0;
        let mut pins = self.pins;
        while pins != 0 {
            let slot = pins.trailing_zeros() as u8;
            pins &= pins - 1;
            self.levels |= 1 << (FIRST_GSI + (slot + FIRST_DEVICE) % 4);
            if let Some(irq) = bridges::route(&self.isa, pirq(slot)) {
                self.levels |= 1 << irq;
            }
        }
    }
}

/// Which of PIRQA to PIRQD pin A of a slot's device leads to: as boards with this ISA bridge are wired.
const fn pirq(slot: u8) -> usize {
    (slot + FIRST_DEVICE - 1) as usize % 4
}

fn info(device: u8, header: &Header) -> Info {
    let [identity, class] = [register::IDENTITY, register::CLASS].map(|one| header.get(one));
    Info {
        device,
        vendor: identity as u16,
        id: (identity >> 16) as u16,
        class: class >> 8,
        ports: None,
        memory: None,
        status: None,
    }
}

fn model(device: &Device, nets: &mut impl Iterator<Item = u8>) -> Model {
    match *device {
        Device::Net { mac } => Model::Net(Net::new(nets.next().unwrap_or(0), mac)),
        Device::Block { disk, sectors, read_only, id } => {
            Model::Block(Block { disk, sectors, read_only, id })
        }
        Device::Rng { seed } => Model::Rng(Rng::new(seed)),
        Device::Console { port } => Model::Console(Console { port }),
    }
}
