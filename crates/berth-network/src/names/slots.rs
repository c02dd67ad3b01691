//! Numbered places that are used again, each time under another token.

/// Where something is kept: index and generation in one number of 56 bits, which fits an epoll event beside its kind.
///
/// A token of something removed finds nothing, although its place may be taken again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Token(u64);

impl Token {
    fn new(index: usize, generation: u32) -> Token {
        Token(u64::from(generation & 0xff_ffff) << 32 | index as u64 & 0xffff_ffff)
    }

    fn index(self) -> usize {
        (self.0 & 0xffff_ffff) as usize
    }

    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The number, below 2^56.
    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    /// The token of [`Token::bits`].
    pub(crate) fn from_bits(bits: u64) -> Token {
        Token(bits & 0xff_ffff_ffff_ffff)
    }
}

/// A list with holes.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    places: Vec<(u32, Option<T>)>,
    free: Vec<usize>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Slots { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    pub(crate) fn insert(&mut self, value: T) -> Token {
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            self.places.len() - 1
        });
        let place = &mut self.places[index];
        place.1 = Some(value);
        Token::new(index, place.0)
    }

    pub(crate) fn get(&self, token: Token) -> Option<&T> {
        let (generation, value) = self.places.get(token.index())?;
        value.as_ref().filter(|_| *generation == token.generation())
    }

    pub(crate) fn get_mut(&mut self, token: Token) -> Option<&mut T> {
        let (generation, value) = self.places.get_mut(token.index())?;
        value.as_mut().filter(|_| *generation == token.generation())
    }

    pub(crate) fn remove(&mut self, token: Token) -> Option<T> {
        self.get(token)?;
        let place = self.places.get_mut(token.index())?;
        place.0 = (place.0 + 1) & 0xff_ffff;
        self.free.push(token.index());
        place.1.take()
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Token, &T)> {
        let token = |index, generation: &u32| Token::new(index, *generation);
        self.places.iter().enumerate().filter_map(move |(i, (g, v))| Some((token(i, g), v.as_ref()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_token_finds_nothing() {
        let mut slots = Slots::default();
        let old = slots.insert("old");
        assert_eq!(slots.remove(old), Some("old"));
        let new = slots.insert("new");
        assert_eq!(old.index(), new.index());
        assert_eq!(slots.remove(old), None);
        assert_eq!((slots.get(old), slots.get(new)), (None, Some(&"new")));
        assert_eq!(slots.iter().collect::<Vec<_>>(), [(Token::from_bits(new.bits()), &"new")]);
        assert_eq!(slots.len(), 1);
    }
}
