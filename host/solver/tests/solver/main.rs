//! What the solver promises, on toy graphs (see [`toy`]): scenarios as text files, a seeded
//! simulation, and a few cases on real threads.

mod scenarios;
mod sim;
mod simulation;
mod threads;
mod toy;
