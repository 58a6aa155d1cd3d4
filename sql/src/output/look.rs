//! What the place is like in which people read results.

/// Whether text may be coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Colors {
    /// It may.
    On,
    /// It goes where colours would be noise.
    #[default]
    Off,
}

/// Where results for people are shown. The default is a file: no limits and no colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Look {
    /// Characters of a line; columns are shortened and left out to fit.
    pub width: Option<usize>,
    /// Rows that are shown: the first and the last ones.
    pub rows: Option<usize>,
    /// Colours.
    pub colors: Colors,
}
