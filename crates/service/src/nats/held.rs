//! A job in the hands of a worker: signs of life while it runs, its end when it has one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream::{AckKind, Message};
use cipherlm_protocol::Event;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use super::line::Line;
use super::wire::{Answer, Call, Say};
use crate::task::Task;
use crate::transport::{End, Lease, Spent, Wish};

/// How long a worker that stops tries to say the end of its job.
const LAST_WORDS: Duration = Duration::from_secs(5);

enum Said {
    Tell(Event),
    End(End, Spent),
}

/// The worker's end of it.
pub(super) struct Held {
    task: Task,
    wish: Arc<AtomicU8>,
    stop: Arc<AtomicBool>,
    said: UnboundedSender<Said>,
    attendant: JoinHandle<()>,
    runtime: Handle,
}

impl Held {
    pub(super) fn new(
        task: Task,
        worker: &str,
        message: Message,
        line: Line,
        stop: &Arc<AtomicBool>,
        runtime: &Handle,
    ) -> Self {
        let (said, heard) = unbounded_channel();
        let wish = Arc::new(AtomicU8::new(Wish::GoOn as u8));
        let call =
            Call { worker: worker.into(), tenant: task.tenant.clone(), job: task.job, say: Say::Alive };
        let attendant =
            Attendant { message, line, call, said: heard, wish: Arc::clone(&wish), stop: Arc::clone(stop) };
        let attendant = runtime.spawn(attendant.attend());
        Self { task, wish, stop: Arc::clone(stop), said, attendant, runtime: runtime.clone() }
    }
}

impl Lease for Held {
    fn task(&self) -> &Task {
        &self.task
    }

    fn tell(&self, event: Event) {
        // Without an attendant the job runs on and ends unheard; its message comes again.
        let _ = self.said.send(Said::Tell(event));
    }

    fn wish(&self) -> Wish {
        if self.stop.load(Ordering::Relaxed) {
            return Wish::Leave;
        }
        match self.wish.load(Ordering::Relaxed) {
            x if x == Wish::GoOn as u8 => Wish::GoOn,
            x if x == Wish::GiveUp as u8 => Wish::GiveUp,
            _ => Wish::Leave,
        }
    }

    fn end(self, end: End, spent: Spent) {
        let _ = self.said.send(Said::End(end, spent));
        let _ = self.runtime.block_on(self.attendant);
    }
}

/// The side of it that speaks with server and NATS.
struct Attendant {
    message: Message,
    line: Line,
    call: Call,
    said: UnboundedReceiver<Said>,
    wish: Arc<AtomicU8>,
    stop: Arc<AtomicBool>,
}

impl Attendant {
    async fn attend(mut self) {
        let mut beat = tokio::time::interval(self.line.beat());
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let next = tokio::select! {
                said = self.said.recv() => said,
                _ = beat.tick() => {
                    self.hold().await;
                    self.call(Say::Alive).await;
                    continue;
                }
            };
            match next {
                Some(Said::Tell(event)) => {
                    self.call(Say::Tell(event)).await;
                }
                Some(Said::End(end, spent)) => return self.end(end, spent).await,
                None => return,
            }
        }
    }

    /// Keeps NATS from giving the message to another.
    async fn hold(&self) {
        let _ = self.message.ack_with(AckKind::Progress).await;
    }

    async fn call(&mut self, say: Say) -> Option<Answer> {
        self.call.say = say;
        let answer = self.line.call(&self.call).await;
        match answer {
            Some(Answer::GiveUp) => self.wish.store(Wish::GiveUp as u8, Ordering::Relaxed),
            Some(Answer::Leave) => self.wish.store(Wish::Leave as u8, Ordering::Relaxed),
            _ => {}
        }
        answer
    }

    /// Says the end until it is written down, then lets the message go.
    async fn end(mut self, end: End, spent: Spent) {
        let say = match &end {
            End::Final(event) => Say::End(event.clone(), spent),
            End::Fault => Say::Fault(spent),
            End::Left => Say::Left(spent),
        };
        let clock = Instant::now();
        loop {
            match self.call(say.clone()).await {
                Some(Answer::Written | Answer::Leave) => break,
                // The answer is on disk: whoever gets the message next finds it there.
                _ if self.stop.load(Ordering::Relaxed) && clock.elapsed() > LAST_WORDS => return,
                _ => {}
            }
            self.hold().await;
            tokio::time::sleep(self.line.beat().min(Duration::from_secs(1))).await;
        }
        // A message that is not let go comes again, and is let go by who asks the server about it.
        let _ = match end {
            End::Final(_) => self.message.double_ack().await,
            End::Fault | End::Left => self.message.ack_with(AckKind::Nak(None)).await,
        };
    }
}
