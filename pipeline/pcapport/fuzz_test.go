package pcapport

import (
	"io"
	"testing"
)

// FuzzReplay gives any bytes for a capture to a node with tunnels of both families: the reader returns frames or an
// error, every frame that fits is accounted for, and none is lost or freed twice (the memory is watched). The corpus has
// each format, frames for each kind of tunnel, and files that are damaged or cut.
func FuzzReplay(f *testing.F) {
	b := newBed(f, io.Discard) // for all inputs: it is the expensive part
	f.Fuzz(func(t *testing.T, file []byte) {
		_ = b.replay(t, file) // says what is wrong with the file
	})
}
