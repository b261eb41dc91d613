//! Parts of a connection that most connections never need, or need only while something comes
//! or goes.
//!
//! A hundred thousand idle connections pay for each byte that each of them has; a [`Lazy`] part
//! costs them a pointer. It reads as empty until it is first written to, and stays then, so a
//! steady state does not allocate.

use core::ops::{Deref, DerefMut};

/// What an unwritten part reads as: the same as its default.
pub(crate) trait Empty: Default + 'static {
    /// The default, where it can be pointed to.
    const EMPTY: &'static Self;
}

/// A part that is allocated when it is first written to.
#[derive(Debug)]
pub(crate) struct Lazy<T>(Option<Box<T>>);

impl<T> Lazy<T> {
    /// Without it.
    pub(crate) const fn empty() -> Self {
        Self(None)
    }

    /// Gives its memory back, if it may be forgotten.
    pub(crate) fn release_if(&mut self, spare: impl FnOnce(&T) -> bool) {
        if self.0.as_deref().is_some_and(spare) {
            self.0 = None;
        }
    }

    /// The part, if it was ever written to.
    pub(crate) fn written(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }
}

impl<T> Default for Lazy<T> {
    fn default() -> Self {
        Self::empty()
    }
}

impl<T: Empty> Deref for Lazy<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or(T::EMPTY)
    }
}

impl<T: Empty> DerefMut for Lazy<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Empty for Vec<u8> {
        const EMPTY: &'static Self = &Vec::new();
    }

    #[test]
    fn it_reads_as_empty_until_written_to_and_after_it_is_released() {
        let mut part = Lazy::<Vec<u8>>::default();
        assert!(part.is_empty() && part.written().is_none());
        assert_eq!(size_of_val(&part), size_of::<usize>());
        part.push(7);
        part.release_if(Vec::is_empty);
        assert_eq!(*part, [7]);
        part.clear();
        assert!(part.written().is_some(), "kept to be used again");
        part.release_if(Vec::is_empty);
        assert!(part.is_empty() && part.written().is_none());
    }
}
