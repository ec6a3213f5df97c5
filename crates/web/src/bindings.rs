//! What JavaScript calls, and what it is called for. There are no pointers in: an input is written
//! where [`input`] says, and belongs to the next command.
//!
//! The page gives two functions in the module `host`: `random`, which fills memory with random
//! bytes and returns 0, and `complain`, which is told the last words of a panic. After those the
//! instance traps and must not be called again.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::sync::Once;

use crate::desk::Desk;

thread_local! {
    static DESK: RefCell<Desk> = RefCell::default();
}

// SAFETY: these are the two imports that `client.js` gives; both take the place and length of
// memory of this instance and keep neither.
#[link(wasm_import_module = "host")]
unsafe extern "C" {
    safe fn random(at: *mut u8, length: usize) -> u32;
    safe fn complain(at: *const u8, length: usize);
}

/// Randomness for every crate below; both versions of `getrandom` call it.
// SAFETY: nothing else here has this name, and the signature is the one that `getrandom` documents.
#[unsafe(no_mangle)]
unsafe extern "Rust" fn __getrandom_v03_custom(at: *mut u8, length: usize) -> Result<(), getrandom::Error> {
    if random(at, length) == 0 { Ok(()) } else { Err(getrandom::Error::new_custom(1)) }
}

fn with<T>(work: impl FnOnce(&mut Desk) -> T) -> T {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            let text = panic.to_string();
            complain(text.as_ptr(), text.len());
        }));
    });
    DESK.with_borrow_mut(work)
}

macro_rules! exports {
    ($($(#[$doc:meta])* fn $name:ident($($argument:ident: usize),*) -> $out:ty $body:block)*) => {$(
        $(#[$doc])*
        // SAFETY: `client.js` knows it by this name, and no other symbol has it.
        #[unsafe(no_mangle)]
        extern "C" fn $name($($argument: usize),*) -> $out $body
    )*};
}

exports! {
    /// Where `length` bytes of input go; null where memory is short.
    fn input(length: usize) -> *mut u8 {
        with(|desk| desk.input(length).map_or(std::ptr::null_mut(), <[u8]>::as_mut_ptr))
    }
    /// Where a result of the last command stands; null for none.
    fn result(part: usize) -> *const u8 {
        with(|desk| desk.result(part).map_or(std::ptr::null(), <[u8]>::as_ptr))
    }
    /// Its length.
    fn result_length(part: usize) -> usize {
        with(|desk| desk.result(part).map_or(0, <[u8]>::len))
    }
    /// [`Desk::offer`].
    fn offer() -> u32 { with(|desk| desk.offer().into()) }
    /// [`Desk::open`].
    fn open() -> u32 { with(|desk| desk.open().into()) }
    /// [`Desk::begin`].
    fn begin() -> u32 { with(|desk| desk.begin().into()) }
    /// [`Desk::go_on`].
    fn go_on() -> u32 { with(|desk| desk.go_on().into()) }
    /// [`Desk::read`].
    fn read() -> u32 { with(|desk| desk.read().into()) }
    /// [`Desk::close`].
    fn close() -> () { with(Desk::close) }
}
