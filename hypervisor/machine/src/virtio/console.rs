//! The console device with one port (virtio 1.2, 5.3).

use serde::{Deserialize, Serialize};

use super::chain::{Broken, Chain};
use super::queue::Queue;
use super::transport::{Events, Transport, feature};
use super::{CONFIG, Served};
use crate::context::Context;

/// VIRTIO_CONSOLE_F_EMERG_WRITE.
const EMERGENCY: u64 = 1 << 2;
/// The features offered.
pub const FEATURES: u64 = EMERGENCY;
/// The queue for what is typed.
pub const RECEIVE: usize = 0;
/// Offset of the emergency-write register.
const EMERGENCY_WRITE: u32 = 8;
/// Most bytes of one request that are taken; the rest of a longer one is dropped.
const REQUEST: u64 = 1 << 20;
/// How much more work a byte is than a copied one.
const COST: usize = 16;

/// The device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Console {
    /// Which side console its output goes to.
    pub port: u8,
}

impl Console {
    /// The configuration structure: the size is not offered, so it is 0.
    pub(super) fn config(&self) -> [u8; CONFIG] {
        let mut config = [0; CONFIG];
        // max_nr_ports
        config[4] = 1;
        config
    }

    /// The emergency write works without any queue, even before the driver is there.
    pub(super) fn write_config(&mut self, offset: u32, value: u32, ctx: &mut Context<'_, '_>) {
        if offset == EMERGENCY_WRITE {
            ctx.out.side_console(self.port, value as u8);
        }
    }

    /// Sends.
    pub(super) fn transmit(&mut self, chain: &Chain, ctx: &mut Context<'_, '_>) -> Result<Served, Broken> {
        let mut text = chain.readable();
        let mut left = REQUEST;
        while left != 0 {
            let Some(piece) = text.piece(left as u32) else { break };
            for &byte in ctx.ram.slice(piece.address, piece.length as usize)? {
                ctx.out.side_console(self.port, byte);
            }
            left -= u64::from(piece.length);
        }
        Ok(Served { written: 0, work: (REQUEST - left) as usize * COST })
    }
}

/// Gives the driver what was typed; answers how much of it there was room for.
pub(crate) fn receive(
    transport: &mut Transport,
    bytes: &[u8],
    ctx: &mut Context<'_, '_>,
    chain: &mut Chain,
) -> (usize, Events) {
    let (taken, events) = transport.fill(RECEIVE, ctx, chain, |queue, features, ctx, chain| {
        let taken = fill(queue, features, bytes, ctx, chain)?;
        if taken < bytes.len() {
            queue.want_notification(ctx.ram, features & feature::EVENTS != 0, true)?;
        }
        Ok(taken)
    });
    (taken.unwrap_or(0), events)
}

fn fill(
    queue: &mut Queue,
    features: u64,
    bytes: &[u8],
    ctx: &mut Context<'_, '_>,
    chain: &mut Chain,
) -> Result<usize, Broken> {
    let mut waiting = queue.waiting(ctx.ram)?;
    let mut taken = 0;
    while waiting != 0 && taken < bytes.len() {
        queue.peek(ctx.ram, 0, features & feature::INDIRECT != 0, chain)?;
        let written = chain.writable().write(ctx.ram, &bytes[taken..])?;
        queue.give_back(ctx.ram, chain.head, written as u32)?;
        taken += written;
        waiting -= 1;
    }
    Ok(taken)
}
