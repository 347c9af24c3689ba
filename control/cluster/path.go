package cluster

import (
	"encoding/json"
	"errors"

	"github.com/nats-io/nats.go"

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
	if sealed, err := c.keys.Seal(subjectPaths, b); err == nil {
		_ = c.engine.Conn.Publish(subjectPaths, sealed)
	}
}

// takePath takes what another node has learned.
func (c *Cluster) takePath(m *nats.Msg) {
	text, err := c.keys.Open(subjectPaths, m.Data)
	var t toldPath
	if err == nil && json.Unmarshal(text, &t) != nil {
		err = errors.New("a path that is told is none")
	}
	if err != nil {
		c.complain(err)
		return
	}
	if t.Node != c.opts.Member.Name && c.opts.OnPath != nil {
		c.opts.OnPath(t.Path)
	}
}
