//! Cores that are joined in memory, under time that the test makes.

mod alliance;
mod cluster;
mod evidence;
mod foresight;
mod hostile;
mod moving;
mod quorum;
mod random;
mod restart;
