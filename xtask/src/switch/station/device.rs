//! The stack's network card: two queues of frames.

use std::collections::VecDeque;

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

use super::super::wire::Frame;

/// Longest frame without FCS, bytes.
const MTU: usize = 1514;
/// Shortest frame without FCS, bytes; shorter ones are padded as a card does.
const LEAST: usize = 60;

/// What has arrived and what is to leave.
#[derive(Default)]
pub struct Queues {
    /// Arrived, not seen by the stack yet.
    pub incoming: VecDeque<Frame>,
    /// Sent by the stack.
    pub outgoing: Vec<Vec<u8>>,
}

/// A frame that has arrived.
pub struct Arrived(Frame);

/// Room for a frame to send.
pub struct Leaving<'a>(&'a mut Vec<Vec<u8>>);

impl RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut frame = vec![0; length];
        let result = write(&mut frame);
        frame.resize(length.max(LEAST), 0);
        self.0.push(frame);
        result
    }
}

impl Device for Queues {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Arrived, Leaving<'_>)> {
        let frame = self.incoming.pop_front()?;
        Some((Arrived(frame), Leaving(&mut self.outgoing)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Leaving<'_>> {
        Some(Leaving(&mut self.outgoing))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MTU;
        capabilities
    }
}
