//! Three small HTTP services (inventory, payment, shipping) with state that can be inspected and failures that the input asks for.
