//! Bounds on those who do not take what they asked for, and on what is still on its way when a
//! request is refused.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use http_body_util::BodyExt;
use hyper::body::Frame;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How much of a refused body is still taken: a client that is cut off while it sends does not see
/// the answer.
const LINGER: u64 = 64 << 20;
/// For how long that is done, and how long one that stops sending is waited for.
const TIME: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(1));

/// A connection that ends when its reader takes nothing for too long.
pub(crate) struct Patient<S> {
    stream: S,
    most: Duration,
    /// Until when the reader has time, while it takes nothing.
    until: Pin<Box<Sleep>>,
    waits: bool,
}

impl<S> Patient<S> {
    pub(crate) fn new(stream: S, most: Duration) -> Self {
        Self { stream, most, until: Box::pin(tokio::time::sleep(most)), waits: false }
    }

    /// An error in place of waiting for more than the reader is given.
    fn within<T>(&mut self, context: &mut Context<'_>, found: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if found.is_ready() {
            self.waits = false;
            return found;
        }
        if !self.waits {
            self.waits = true;
            let until = Instant::now() + self.most;
            self.until.as_mut().reset(until);
        }
        match self.until.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.within(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.within(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.stream).poll_shutdown(context);
        self.within(context, closed)
    }
}

/// A request's body. What a refusal leaves of it is taken and thrown away.
pub(crate) struct Lingering {
    body: Body,
    /// Whether the end was not seen.
    open: bool,
}

impl Lingering {
    pub(crate) fn body(body: Body) -> Body {
        let open = !body.is_end_stream();
        if open { Body::new(Self { body, open }) } else { body }
    }
}

impl HttpBody for Lingering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.open &= !matches!(frame, Poll::Ready(None | Some(Err(_))));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        if !self.open || self.body.is_end_stream() {
            return;
        }
        let mut body = std::mem::take(&mut self.body);
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (whole, pause) = TIME;
        runtime.spawn(tokio::time::timeout(whole, async move {
            let mut taken = 0;
            while let Ok(Some(Ok(frame))) = tokio::time::timeout(pause, body.frame()).await {
                taken += frame.data_ref().map_or(0, |data| data.len() as u64);
                if taken > LINGER {
                    return;
                }
            }
        }));
    }
}
