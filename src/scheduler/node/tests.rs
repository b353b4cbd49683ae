//! The rules of the node, one by one.
