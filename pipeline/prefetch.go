//go:build amd64 || arm64

package pipeline

// prefetch asks for the n cache lines at the addresses of list: one call for a whole batch, so that the loads of a
// stage overlap instead of following one another. An address need not be valid; nothing is read.
//
//go:noescape
func prefetch(list *uintptr, n int)
