//go:build amd64 || arm64

package pipeline

import (
	"unsafe"

	"causeway/xsk"
)

// The loads of a stage overlap instead of following one another when all are asked for first: one call of assembly for a
// whole batch. Nothing is read and an address need not be valid.

// prefetchFrames asks for the usual headers of the packets that descs describe.
func prefetchFrames(memory unsafe.Pointer, descs []xsk.Desc) {
	prefetchDescs(memory, unsafe.SliceData(descs), len(descs))
}

// fetchLeaving asks for what leaveTunnels needs of tunnels: the first line of each rxTunnel, and the counters.
func (w *worker) fetchLeaving(t *Tables, ids []uint32) {
	prefetchLines(unsafe.SliceData(ids), len(ids), unsafe.Pointer(unsafe.SliceData(t.rx)), unsafe.Pointer(unsafe.SliceData(w.tunnels)))
}

// fetchEntering asks for what enterTunnels needs of tunnels: the second line of each txTunnel, the counters, the states,
// and where there is IPsec the associations.
func (w *worker) fetchEntering(t *Tables, ids []uint32) {
	if len(t.tx) == 0 {
		return // there is no second line to point to
	}
	second := unsafe.Add(unsafe.Pointer(unsafe.SliceData(t.tx)), 64)
	prefetchLines(unsafe.SliceData(ids), len(ids), second, unsafe.Pointer(unsafe.SliceData(w.tunnels)))
	prefetchWords(unsafe.SliceData(ids), len(ids), unsafe.Pointer(unsafe.SliceData(w.engine.fwd.tunnels)))
	if len(t.spis.list) >= few {
		w.sealer.Prefetch(t.out, ids)
	}
}

// few associations are in the cache without asking.
const few = 32

// fetchOpening asks for what openESP needs of associations and their tunnels.
func (w *worker) fetchOpening(t *Tables, sas []uint32) {
	if len(t.spis.list) < few {
		return
	}
	w.opener.Prefetch(t.spis.in, sas)
	for k, at := range sas {
		w.ids[k&(BatchSize-1)] = 0
		if at < uint32(len(t.spis.list)) {
			w.ids[k&(BatchSize-1)] = uint32(t.spis.list[at].tunnel)
		}
	}
	w.fetchLeaving(t, w.ids[:len(sas)])
}

// The assembly knows these sizes.
const (
	_ = uint(128-unsafe.Sizeof(rxTunnel{})) + uint(unsafe.Sizeof(rxTunnel{})-128)
	_ = uint(128-unsafe.Sizeof(txTunnel{})) + uint(unsafe.Sizeof(txTunnel{})-128)
	_ = uint(64-unsafe.Sizeof(tunnelCounters{})) + uint(unsafe.Sizeof(tunnelCounters{})-64)
	_ = uint(8-unsafe.Sizeof(tunnelState{})) + uint(unsafe.Sizeof(tunnelState{})-8)
	_ = uint(16-unsafe.Sizeof(xsk.Desc{})) + uint(unsafe.Sizeof(xsk.Desc{})-16)
)

// prefetchDescs asks for the lines at memory + Addr and 37 bytes behind it for each of n descriptors.
//
//go:noescape
func prefetchDescs(memory unsafe.Pointer, descs *xsk.Desc, n int)

// prefetchLines asks, for each of n numbers, for the line in contexts (128 bytes each) and the one in counters (64
// bytes each).
//
//go:noescape
func prefetchLines(numbers *uint32, n int, contexts, counters unsafe.Pointer)

// prefetchWords asks, for each of n numbers, for the line of the 8-byte word in words.
//
//go:noescape
func prefetchWords(numbers *uint32, n int, words unsafe.Pointer)
