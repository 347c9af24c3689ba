package engine

import (
	"context"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A server that could not write to its disk takes nothing any more, also when that has room again: one that has the store alone answers no
// write, and one of several ends its part. So its store is opened again then, with what the disk has.

// How often it is looked whether there is room again, and how much is enough, in bytes.
const (
	roomTime  = 2 * time.Second
	leastRoom = 16 << 20
)

// settleTime is how long the server is given to end its part by itself: one that leads the others waits 2 s for another to do so, and would end
// what was opened meanwhile.
const settleTime = 3 * time.Second

// failsToWrite reports whether a line of the server's says that it could not write.
func failsToWrite(format string) bool {
	return strings.Contains(format, "ritical write error") || strings.Contains(format, "will be DISABLED")
}

// Failed says why the store of this node takes nothing; nil: it does, or this node has none.
func (e *Engine) Failed() error {
	if !e.log.failed.Load() {
		return nil
	}
	return fmt.Errorf("the store could not write to %s, which has %d MiB free: with %d MiB or more it goes on by itself", e.options.Dir, e.room()>>20, leastRoom>>20)
}

// room is how many bytes are free for the store.
func (e *Engine) room() uint64 {
	var s unix.Statfs_t
	if err := unix.Statfs(e.options.Dir, &s); err != nil {
		return 0
	}
	return s.Bavail * uint64(s.Bsize)
}

// mend opens the store again when it has failed and there is room, until ctx is done.
func (e *Engine) mend(ctx context.Context) {
	tick := time.NewTicker(roomTime)
	defer tick.Stop()
	var since time.Time // zero: nothing is wrong
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			switch {
			case !e.log.failed.Load() && e.server.JetStreamEnabled():
				since = time.Time{}
			case since.IsZero():
				since = now
			case now.Sub(since) >= settleTime && e.room() >= leastRoom:
				e.reopen()
				since = time.Time{}
			}
		}
	}
}

// reopen has the server read its store again.
func (e *Engine) reopen() {
	c := e.jetstream
	e.log.failed.Store(false) // what fails from now on is said again
	err := e.server.ShutdownJetStream()
	if err == nil {
		err = e.server.EnableJetStream(&c)
	}
	if err != nil {
		e.log.failed.Store(true)
		e.options.Log.Error("cluster: the store is not opened again", "error", err, "again_in", roomTime)
		return
	}
	e.options.Log.Warn("cluster: the store has room again, and was opened again", "path", e.options.Dir)
}
