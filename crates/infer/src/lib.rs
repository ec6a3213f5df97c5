//! Encrypted transformer inference: layouts, planner, encrypted layers, client and server.
