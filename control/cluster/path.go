package cluster

import (
	"encoding/json"
	"errors"

	"causeway/control/pmtu"
)

// What an ICMP error says of the path to a customer is for all nodes, whichever one it came to.

const subjectPaths = "causeway.paths"

// A toldPath is what a node has learned.
type toldPath struct {
	Node string    `json:"node"`
	Path pmtu.Path `json:"path"`
}

// TellPath tells the other nodes what this one has learned. If it is lost, the next telling has it.
func (c *Cluster) TellPath(p pmtu.Path) {
	b, err := json.Marshal(toldPath{c.opts.Member.Name, p})
	if err != nil {
		return
	}
	_ = c.say(subjectPaths, subjectPaths, b)
}

// takePath takes what another node has learned.
func (c *Cluster) takePath(text []byte) error {
	var t toldPath
	if json.Unmarshal(text, &t) != nil {
		return errors.New("a path that is told is none")
	}
	if t.Node != c.opts.Member.Name && c.opts.OnPath != nil {
		c.opts.OnPath(t.Path)
	}
	return nil
}
