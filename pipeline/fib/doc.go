// Package fib holds the tables that a worker asks where a packet goes: longest-prefix match for IPv4 and IPv6, and groups that
// spread flows over several next hops.
//
// # Shape
//
// Both tables are multibit tries. The first 8, 16 or 24 bits of an address index the root, each further 8 bits index one block of
// 256 slots. A slot is a uint32: either a Value, or the number of a block with bit 31 set. With 24 root bits an IPv4 lookup is one
// memory access, and a second one only where a route is longer than /24 (the scheme known as DIR-24-8):
//
//	address   198.51.100.7
//	root      slot 0xc63364  ->  block 5   (there is a route longer than /24 below)
//	block 5   slot 0x07      ->  Value 42
//
// Table6 has one kind of slot more: if a single route lies below a slot, the slot names a leaf, 32 bytes with the prefix to compare
// and the two possible results. Most IPv6 routes are alone in their neighbourhood; without leaves a /48 would drag along blocks for
// bits 33 to 48.
//
// Routes are expanded into every slot that they cover, so a reader never backtracks. The default route is kept beside the trie:
// it costs one word instead of all slots, and a slot without a more specific route holds 0 and means "the default".
//
// # Readers and the writer
//
// One writer changes the table in place; readers take no lock and wait for nobody, only a lookup during which the default route
// changes is repeated. Each slot is stored atomically, a new block is filled
// with the route that covers it before its parent slot points at it, and a block that is no longer needed goes through the retire
// function of the table: it is not reused before its owner has seen each reader pass a batch boundary. So a lookup that
// runs beside an update returns the route from before or from after it, never a third one and never none.
//
// # Memory
//
// A root of 24 bits is 64 MiB of address space outside the Go heap, of which only touched pages exist; huge pages are asked for.
// The writer keeps one byte for each slot of the root, a block is 1 KiB for readers and 258 bytes for the writer. The writer's own copy
// of all routes (the RIB, a table of github.com/gaissmai/bart) comes on top, 27 bytes per IPv4 route and 80 per IPv6 route in tables of
// Internet size: it tells which shorter route returns when a route is deleted.
package fib
