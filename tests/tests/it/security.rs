//! Who is let in, what they may do, and which files they reach: with real processes, certificates and tokens.

mod binding;
mod clients;
mod files;
mod leaks;
mod processes;
mod secured;
mod tickets;
