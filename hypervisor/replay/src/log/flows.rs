//! Frames, each against an earlier one of the same flow: header prediction, as Van Jacobson has it for serial lines (RFC 1144).
//!
//! Writer and reader remember the headers of the last frames of a few flows. Of a frame that looks like one of them only what
//! differs from the prediction is written, and checksums that are right are computed. Whatever the bytes are, they come back:
//! what is not predicted is written.

use super::block::BODY_MAX;
use super::bytes::{In, Malformed, NoRoom, Out, unzigzag, zigzag};
use super::frame::{Frame, HEAD};
use super::shape::{Network, SHORTEST, Shape, Transport};
use core::fmt;

/// Flows that are remembered.
pub const FLOWS: usize = 8;
/// Bytes of the longest frame, and of every other payload. What a body has beside it is less than is left: the block's number and
/// mark, an entry's place, and of a frame its form, mask, fields, length, sums and what runs have beside their bytes.
pub const FRAME_MAX: usize = BODY_MAX - 256;

/// The byte that says how a frame is written.
mod form {
    /// Which remembered flow, counted from the one that was used last.
    pub const RANK: u8 = 7;
    /// A flow of its own from now on: the oldest is forgotten for it.
    pub const NEW: u8 = 1 << 3;
    /// The checksum of the network's header is not what it should be: it is given.
    pub const HEADER_SUM: u8 = 1 << 4;
    /// The same of the transport's.
    pub const SEGMENT_SUM: u8 = 1 << 5;
    /// The frame's length is not what follows from the network's: it is given.
    pub const LENGTH: u8 = 1 << 6;
    /// The frame as it is.
    pub const WHOLE: u8 = 1 << 7;
}

/// The byte that says what is not as predicted.
mod field {
    pub const LENGTH: u8 = 1 << 0;
    pub const ID: u8 = 1 << 1;
    pub const SEQUENCE: u8 = 1 << 2;
    pub const ACKNOWLEDGED: u8 = 1 << 3;
    pub const WINDOW: u8 = 1 << 4;
    pub const STAMP: u8 = 1 << 5;
    pub const ECHO: u8 = 1 << 6;
    /// Other bytes.
    pub const REST: u8 = 1 << 7;
}

/// In the first byte of a run of changed bytes: another follows.
const MORE: u8 = 1 << 7;
/// So many equal bytes and fewer are written with the changed ones around them.
const GAP: usize = 2;

/// Why a frame cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadFrame {
    /// Its first byte says nothing that is known.
    Form(u8),
    /// Like one of a flow that there is not.
    Flow,
    /// Bytes beyond its head are changed.
    Run,
    /// A field has no such value.
    Field,
    /// It has this length, shorter than its headers or longer than a frame.
    Length(u64),
}

impl fmt::Display for BadFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form(form) => write!(f, "no frame begins with {form:#04x}"),
            Self::Flow => f.write_str("a frame like one of a flow that there is not"),
            Self::Run => f.write_str("a frame of which bytes are changed that it has not"),
            Self::Field => f.write_str("a frame with a field that is out of bounds"),
            Self::Length(length) => write!(f, "a frame of {length} bytes"),
        }
    }
}

/// What cannot be read of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Its bytes.
    Malformed(Malformed),
    /// What they say.
    Bad(BadFrame),
}

impl From<Malformed> for Wrong {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl From<BadFrame> for Wrong {
    fn from(bad: BadFrame) -> Self {
        Self::Bad(bad)
    }
}

/// The last frame of a flow.
#[derive(Clone, Copy, Debug)]
struct Flow {
    shape: Shape,
    head: [u8; HEAD],
    /// A number for finding it; the writer's alone.
    key: u64,
    /// The length that is predicted: the network's, or the frame's where there is none.
    length: u16,
    /// A frame that was padded.
    padded: bool,
    /// The sequence number that comes next.
    sequence: u32,
    /// By how much these have changed the last time that they did not do as predicted.
    id_step: u16,
    acknowledged_step: u32,
    window_step: u16,
}

/// The flows that are remembered.
#[derive(Clone, Debug)]
pub struct Flows {
    flows: [Option<Flow>; FLOWS],
    /// Indices of the flows, the one that was used last first.
    order: [u8; FLOWS],
}

impl Default for Flows {
    fn default() -> Self {
        Self::new()
    }
}

/// A frame's length as its headers say, and as it is.
#[derive(Clone, Copy, Debug)]
struct Extent {
    /// As the network's header says, from the frame's beginning.
    natural: usize,
    /// As it is.
    frame: usize,
}

impl Extent {
    const fn is_padded(self) -> bool {
        self.natural < SHORTEST && self.frame == SHORTEST
    }
}

impl Flow {
    /// A flow of which nothing is known but this frame.
    fn of(shape: Shape, head: [u8; HEAD], frame: usize) -> Self {
        let mut flow = Self {
            shape,
            head,
            key: 0,
            length: 0,
            padded: false,
            sequence: 0,
            id_step: 1,
            acknowledged_step: 0,
            window_step: 0,
        };
        flow.length = flow.read_length(frame);
        let extent = Extent { natural: flow.natural(), frame };
        flow.note(extent);
        flow
    }

    /// The length that its head has; where it has none, the frame's, which is given.
    fn read_length(&self, frame: usize) -> u16 {
        self.shape.length().map_or(frame as u16, |at| self.short(at))
    }

    /// How long a frame is by its headers.
    fn natural(&self) -> usize {
        self.shape.before() + usize::from(self.length)
    }

    fn short(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.head[at], self.head[at + 1]])
    }

    fn set_short(&mut self, at: usize, value: u16) {
        self.head[at..at + 2].copy_from_slice(&value.to_be_bytes());
    }

    fn long(&self, at: usize) -> u32 {
        u32::from_be_bytes([self.head[at], self.head[at + 1], self.head[at + 2], self.head[at + 3]])
    }

    fn set_long(&mut self, at: usize, value: u32) {
        self.head[at..at + 4].copy_from_slice(&value.to_be_bytes());
    }

    /// What follows for the next from this one.
    fn note(&mut self, extent: Extent) {
        self.padded = extent.is_padded();
        if self.shape.transport == Transport::Tcp {
            let flags = self.head[self.shape.segment(13)];
            let ends = u32::from(flags & 1) + u32::from(flags >> 1 & 1);
            let bytes = extent.natural.saturating_sub(self.shape.head()) as u32;
            self.sequence = self.long(self.shape.segment(4)).wrapping_add(bytes).wrapping_add(ends);
        }
    }

    /// The frame's length, if it is what follows from the network's.
    fn predicted_extent(&self) -> Extent {
        let natural = self.natural();
        Extent { natural, frame: if self.padded { natural.max(SHORTEST) } else { natural } }
    }
}

/// Where fields come from or go to: the writer's or the reader's side of [`fields`].
trait Fields {
    type Error;
    /// The change of a field of this bit against its prediction; 0: none. `real` is what the frame has.
    fn change(&mut self, bit: u8, predicted: u32, real: u32, bits: u32) -> Result<u32, Self::Error>;
}

/// Goes over all fields that are predicted, in their order. `flow` is the last frame, and becomes this one; `real` is this one,
/// where it is known, and `frame` its length.
fn fields<F: Fields>(flow: &mut Flow, real: &Flow, sink: &mut F) -> Result<(), F::Error> {
    let shape = flow.shape;
    let length = u32::from(flow.length);
    flow.length = sink.change(field::LENGTH, length, u32::from(real.length), 16)? as u16;
    if let Some(at) = shape.length() {
        flow.set_short(at, flow.length);
    }
    if shape.network == Network::V4 {
        let at = shape.ip(4);
        let last = flow.short(at);
        let id = sink.change(
            field::ID,
            u32::from(last.wrapping_add(flow.id_step)),
            u32::from(real.short(at)),
            16,
        )? as u16;
        flow.id_step = id.wrapping_sub(last);
        flow.set_short(at, id);
    }
    match shape.transport {
        Transport::Tcp => {
            let at = shape.segment(4);
            let sequence = sink.change(field::SEQUENCE, flow.sequence, real.long(at), 32)?;
            flow.set_long(at, sequence);
            let at = shape.segment(8);
            let last = flow.long(at);
            let predicted = last.wrapping_add(flow.acknowledged_step);
            let acknowledged = sink.change(field::ACKNOWLEDGED, predicted, real.long(at), 32)?;
            flow.acknowledged_step = acknowledged.wrapping_sub(last);
            flow.set_long(at, acknowledged);
            let at = shape.segment(14);
            let last = flow.short(at);
            let predicted = u32::from(last.wrapping_add(flow.window_step));
            let window = sink.change(field::WINDOW, predicted, u32::from(real.short(at)), 16)? as u16;
            flow.window_step = window.wrapping_sub(last);
            flow.set_short(at, window);
            if shape.stamps != 0 {
                for (bit, at) in [(field::STAMP, 0), (field::ECHO, 4)] {
                    let at = usize::from(shape.stamps) + at;
                    let stamp = sink.change(bit, flow.long(at), real.long(at), 32)?;
                    flow.set_long(at, stamp);
                }
            }
        }
        Transport::Udp => {
            let length = flow.natural().wrapping_sub(shape.segment(0)) as u16;
            flow.set_short(shape.segment(4), length);
        }
        Transport::Icmp | Transport::Other => {}
    }
    Ok(())
}

/// A change of a field of so many bits, brought to 64.
const fn widened(change: u32, bits: u32) -> u64 {
    let up = 32 - bits;
    ((change << up) as i32 >> up) as i64 as u64
}

/// The writer's side: first the changes are noted, then written behind the mask.
#[derive(Default)]
struct Noted {
    mask: u8,
    changes: [u64; 7],
    count: usize,
}

impl Fields for Noted {
    type Error = core::convert::Infallible;

    fn change(&mut self, bit: u8, predicted: u32, real: u32, bits: u32) -> Result<u32, Self::Error> {
        if real != predicted {
            self.mask |= bit;
            if let Some(place) = self.changes.get_mut(self.count) {
                *place = zigzag(widened(real.wrapping_sub(predicted), bits));
            }
            self.count += 1;
        }
        Ok(real)
    }
}

/// The reader's side.
struct Taken<'t, 'l> {
    mask: u8,
    /// Bits that no field was asked for yet.
    left: u8,
    input: &'t mut In<'l>,
}

impl Fields for Taken<'_, '_> {
    type Error = Wrong;

    fn change(&mut self, bit: u8, predicted: u32, _real: u32, bits: u32) -> Result<u32, Wrong> {
        if self.mask & bit == 0 {
            return Ok(predicted);
        }
        self.left &= !bit;
        let change = unzigzag(self.input.varint()?);
        let value = predicted.wrapping_add(change as u32);
        let value = if bits == 16 { value & 0xFFFF } else { value };
        // Only what a writer makes.
        match widened(value.wrapping_sub(predicted), bits) {
            same if same == change && change != 0 => Ok(value),
            _ => Err(BadFrame::Field.into()),
        }
    }
}

/// The runs of bytes at which two heads differ: where each begins, and where it ends.
fn runs<'h>(one: &'h [u8], other: &'h [u8]) -> impl Iterator<Item = (usize, usize)> + use<'h> {
    let differs = move |at: &usize| one.get(*at) != other.get(*at);
    let length = one.len();
    let mut at = 0;
    core::iter::from_fn(move || {
        let begin = (at..length).find(differs)?;
        let mut end = begin + 1;
        while let Some(next) = (end..length.min(end + GAP + 1)).find(differs) {
            end = next + 1;
        }
        at = end;
        Some((begin, end))
    })
}

impl Flows {
    /// None is known.
    #[must_use]
    pub const fn new() -> Self {
        Self { flows: [None; FLOWS], order: [0, 1, 2, 3, 4, 5, 6, 7] }
    }

    /// The flow of this rank.
    fn ranked(&self, rank: usize) -> Option<&Flow> {
        let index = *self.order.get(rank)?;
        self.flows.get(usize::from(index))?.as_ref()
    }

    /// Remembers a frame: instead of the flow of this rank, which becomes the first.
    fn remember(&mut self, rank: usize, flow: Flow) {
        let Some(first) = self.order.get_mut(..=rank) else { return };
        first.rotate_right(1);
        if let Some(place) = self.flows.get_mut(usize::from(self.order[0])) {
            *place = Some(flow);
        }
    }

    /// Says how a frame is written. It is not remembered yet: [`write`](Self::write) does.
    ///
    /// # Errors
    /// It is longer than [`FRAME_MAX`].
    pub fn plan<'f>(&self, frame: &'f Frame<'_>) -> Result<Plan<'f>, NoRoom> {
        if frame.len() > FRAME_MAX {
            return Err(NoRoom);
        }
        let parts = frame.parts();
        let mut head = [0; HEAD];
        let near = parts[0].len().min(HEAD);
        let far = parts[1].len().min(HEAD - near);
        head[..near].copy_from_slice(&parts[0][..near]);
        head[near..near + far].copy_from_slice(&parts[1][..far]);
        let shape = Shape::of(&head[..near + far]);
        let mut real = Flow::of(shape, head, frame.len());
        real.key = shape.flow(&head);
        let known = self.find(&real).and_then(|(rank, new)| Some((rank, new, self.ranked(rank)?)));
        Ok(match known {
            Some((rank, new, base)) => Plan::like(base, rank, new, real, frame),
            None => Plan {
                form: form::WHOLE,
                rank: FLOWS - 1,
                noted: Noted::default(),
                flow: real,
                base: real,
                tail: parts,
            },
        })
    }

    /// The flow of this frame, or one that has the same headers; and whether it is another one.
    fn find(&self, real: &Flow) -> Option<(usize, bool)> {
        let mut alike = None;
        for rank in 0..FLOWS {
            let flow = self.ranked(rank)?;
            if flow.shape == real.shape {
                if flow.key == real.key {
                    return Some((rank, false));
                }
                alike = alike.or(Some((rank, true)));
            }
        }
        alike
    }

    /// Writes a frame as planned, without its form if that is 0 and `implied`.
    ///
    /// # Errors
    /// It does not fit; then nothing is remembered.
    pub fn write(&mut self, plan: &Plan<'_>, implied: bool, out: &mut Out<'_>) -> Result<(), NoRoom> {
        if !implied {
            out.byte(plan.form)?;
        }
        if plan.form == form::WHOLE {
            out.varint((plan.tail[0].len() + plan.tail[1].len()) as u64)?;
        } else {
            plan.write(out)?;
        }
        out.raw(plan.tail[0])?;
        out.raw(plan.tail[1])?;
        self.remember(plan.rank, plan.flow);
        Ok(())
    }

    /// Reads a frame. `implied`: its form is 0 and not there.
    ///
    /// # Errors
    /// The bytes are none.
    pub fn read<'l>(&mut self, implied: bool, input: &mut In<'l>) -> Result<Frame<'l>, Wrong> {
        let form = if implied { 0 } else { input.byte()? };
        if form & form::WHOLE != 0 {
            return self.read_whole(form, input);
        }
        let rank = usize::from(form & form::RANK);
        let mut flow = *self.ranked(rank).ok_or(BadFrame::Flow)?;
        let shape = flow.shape;
        let mask = input.byte()?;
        let last = flow;
        let mut taken = Taken { mask, left: mask & !field::REST, input };
        fields(&mut flow, &last, &mut taken)?;
        if taken.left != 0 {
            return Err(BadFrame::Field.into());
        }
        let mut extent = flow.predicted_extent();
        let mut end = extent.natural;
        if form & form::LENGTH != 0 {
            extent.frame = usize::try_from(input.varint()?).unwrap_or(usize::MAX);
            end = extent.frame;
        }
        if end < shape.head() || extent.frame > FRAME_MAX {
            return Err(BadFrame::Length(extent.frame as u64).into());
        }
        if mask & field::REST != 0 {
            read_runs(&mut flow.head[..shape.head()], input)?;
        }
        let given = |flag: u8, input: &mut In<'l>| -> Result<Option<[u8; 2]>, Malformed> {
            (form & flag != 0).then(|| input.array()).transpose()
        };
        let (header_sum, segment_sum) = (given(form::HEADER_SUM, input)?, given(form::SEGMENT_SUM, input)?);
        let tail = input.raw(end - shape.head())?;
        if let Some(at) = shape.header_sum() {
            let sum = header_sum.unwrap_or_else(|| shape.right_header_sum(&flow.head));
            flow.head[at..at + 2].copy_from_slice(&sum);
        }
        if let Some(at) = shape.segment_sum() {
            let right = || shape.right_segment_sum(&flow.head, [tail, &[]], extent.natural);
            let sum = segment_sum.unwrap_or_else(right);
            flow.head[at..at + 2].copy_from_slice(&sum);
        }
        flow.note(extent);
        self.remember(if form & form::NEW == 0 { rank } else { FLOWS - 1 }, flow);
        Ok(rebuilt(&flow, tail, extent.frame))
    }

    fn read_whole<'l>(&mut self, form: u8, input: &mut In<'l>) -> Result<Frame<'l>, Wrong> {
        if form != form::WHOLE {
            return Err(BadFrame::Form(form).into());
        }
        let bytes = input.string()?;
        if bytes.len() > FRAME_MAX {
            return Err(BadFrame::Length(bytes.len() as u64).into());
        }
        let first = bytes.get(..HEAD).unwrap_or(bytes);
        let mut head = [0; HEAD];
        head[..first.len()].copy_from_slice(first);
        self.remember(FLOWS - 1, Flow::of(Shape::of(first), head, bytes.len()));
        Ok(Frame::whole(bytes))
    }
}

/// The frame with this head and tail; it was padded where it is longer than both.
fn rebuilt<'l>(flow: &Flow, tail: &'l [u8], length: usize) -> Frame<'l> {
    let (mut head, at) = (flow.head, flow.shape.head());
    if at + tail.len() == length {
        return Frame::rebuilt(head, at, tail);
    }
    // It is one of the shortest, and these are shorter than a head.
    let end = at + tail.len();
    if let Some(place) = head.get_mut(at..end) {
        place.copy_from_slice(tail);
    }
    if let Some(padding) = head.get_mut(end..length) {
        padding.fill(0);
    }
    Frame::rebuilt(head, length, &[])
}

fn read_runs(head: &mut [u8], input: &mut In<'_>) -> Result<(), Wrong> {
    let mut at = 0;
    loop {
        let first = input.byte()?;
        at += usize::from(first & !MORE);
        let bytes = input.string()?;
        let place = head.get_mut(at..).and_then(|head| head.get_mut(..bytes.len())).ok_or(BadFrame::Run)?;
        place.copy_from_slice(bytes);
        at += bytes.len();
        if first & MORE == 0 {
            return Ok(());
        }
    }
}

/// How a frame is written.
pub struct Plan<'f> {
    form: u8,
    /// Instead of which flow it is remembered.
    rank: usize,
    noted: Noted,
    /// What is remembered.
    flow: Flow,
    /// What it is like: its fields are those of the frame, its other bytes those of a frame before.
    base: Flow,
    /// What is not predicted: all of the frame, or what follows the head.
    tail: [&'f [u8]; 2],
}

impl<'f> Plan<'f> {
    /// Of a frame with these headers that is like one before.
    fn like(base: &Flow, rank: usize, new: bool, real: Flow, frame: &'f Frame<'_>) -> Self {
        let (shape, mut base, mut noted) = (real.shape, *base, Noted::default());
        let Ok(()) = fields(&mut base, &real, &mut noted);
        let parts = frame.parts();
        let behind = match shape.head().checked_sub(parts[0].len()) {
            Some(far) => [&[][..], parts[1].get(far..).unwrap_or_default()],
            None => [parts[0].get(shape.head()..).unwrap_or_default(), parts[1]],
        };
        let mut form = rank as u8 | if new { form::NEW } else { 0 };

        let mut extent = base.predicted_extent();
        let predicted = extent.frame == frame.len() && extent.natural >= shape.head();
        let inside = extent.natural.saturating_sub(shape.head());
        let (tail, padding) = split(behind, inside);
        let tail = if predicted && padding.into_iter().flatten().all(|byte| *byte == 0) {
            tail
        } else {
            form |= form::LENGTH;
            behind
        };
        extent.frame = frame.len();

        if let Some(at) = shape.header_sum() {
            if real.head[at..at + 2] != shape.right_header_sum(&real.head) {
                form |= form::HEADER_SUM;
            }
            base.head[at..at + 2].copy_from_slice(&real.head[at..at + 2]);
        }
        if let Some(at) = shape.segment_sum() {
            if real.head[at..at + 2] != shape.right_segment_sum(&real.head, behind, extent.natural) {
                form |= form::SEGMENT_SUM;
            }
            base.head[at..at + 2].copy_from_slice(&real.head[at..at + 2]);
        }
        if base.head[..shape.head()] != real.head[..shape.head()] {
            noted.mask |= field::REST;
        }
        let mut flow = Flow { head: real.head, key: real.key, ..base };
        flow.note(extent);
        let rank = if new { FLOWS - 1 } else { rank };
        Self { form, rank, noted, flow, base, tail }
    }

    /// Whether its form is 0: like the last frame, in everything that a form can say.
    #[must_use]
    pub const fn is_next(&self) -> bool {
        self.form == 0
    }

    fn write_runs(&self, out: &mut Out<'_>) -> Result<(), NoRoom> {
        let (real, head) = (&self.flow.head, self.flow.shape.head());
        let mut at = 0;
        let mut runs = runs(&self.base.head[..head], &real[..head]).peekable();
        while let Some((begin, end)) = runs.next() {
            let more = if runs.peek().is_some() { MORE } else { 0 };
            out.byte((begin - at) as u8 | more)?;
            out.string(&real[begin..end])?;
            at = end;
        }
        Ok(())
    }

    /// What is before the tail, behind the form.
    fn write(&self, out: &mut Out<'_>) -> Result<(), NoRoom> {
        let (shape, real) = (self.flow.shape, &self.flow.head);
        out.byte(self.noted.mask)?;
        for change in self.noted.changes.iter().take(self.noted.count) {
            out.varint(*change)?;
        }
        if self.form & form::LENGTH != 0 {
            let tail = self.tail[0].len() + self.tail[1].len();
            out.varint((shape.head() + tail) as u64)?;
        }
        if self.noted.mask & field::REST != 0 {
            self.write_runs(out)?;
        }
        for (flag, place) in
            [(form::HEADER_SUM, shape.header_sum()), (form::SEGMENT_SUM, shape.segment_sum())]
        {
            if let (true, Some(at)) = (self.form & flag != 0, place) {
                out.raw(&real[at..at + 2])?;
            }
        }
        Ok(())
    }
}

/// Two pieces, cut behind so many bytes of both.
fn split([one, other]: [&[u8]; 2], at: usize) -> ([&[u8]; 2], [&[u8]; 2]) {
    let near = at.min(one.len());
    let far = (at - near).min(other.len());
    let ((a, b), (c, d)) = (one.split_at(near), other.split_at(far));
    ([a, c], [b, d])
}
