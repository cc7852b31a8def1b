//! The rules of the style page as tests.
