//! A part of a state that many states share: copied when it changes, and hashed only then.

use std::{
    hash::{Hash, Hasher},
    rc::Rc,
};

#[derive(Clone)]
pub(super) struct Shared<T> {
    value: Rc<T>,
    fingerprint: u64,
}

impl<T: Clone + Hash> Shared<T> {
    pub(super) fn new(value: T) -> Self {
        Self {
            fingerprint: fingerprint(&value),
            value: Rc::new(value),
        }
    }

    pub(super) fn get(&self) -> &T {
        &self.value
    }

    pub(super) fn edit<R>(&mut self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(Rc::make_mut(&mut self.value));
        self.fingerprint = fingerprint(&*self.value);
        result
    }
}

impl<T> Hash for Shared<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.fingerprint);
    }
}

pub(super) fn fingerprint(value: &impl Hash) -> u64 {
    let mut hasher = Quick(0x2545_F491_4F6C_DD1D);
    value.hash(&mut hasher);
    hasher.finish()
}

/// Multiply and rotate: the default hasher is slow without optimisation.
struct Quick(u64);

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(value.into());
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(23) ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write_i64(&mut self, value: i64) {
        self.write_u64(value as u64);
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.write_u64(value as u64);
    }

    fn finish(&self) -> u64 {
        let folded = (self.0 ^ (self.0 >> 32)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        folded ^ (folded >> 32)
    }
}
