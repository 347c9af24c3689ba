package node

import (
	"causeway/control/api"
	"causeway/pipeline"
)

// FramesOf is the account of frames as operators see it, of workers that belong to no Node.
func FramesOf(c *pipeline.Counters) api.Frames { return frames(c) }

// DropOf is a drop reason as operators see it, with how many packets met it.
func DropOf(r pipeline.Reason, packets uint64) api.Drop {
	i := r.Info()
	return api.Drop{Reason: i.Label, Stage: string(i.Stage), Packets: packets, Sentence: i.Sentence, RFC: i.RFC}
}
