package cluster

import (
	"encoding/hex"
	"errors"

	"github.com/nats-io/nats.go"

	"causeway/control/cluster/seal"
)

// Nodes tell each other how the tunnels are (package health): those of a data center all that they find, and all nodes what the data center
// makes of it.
const subjectHealth = "causeway.health"

// healthHere is the subject of this node's data center. Names have dots, which subjects do not have everywhere.
func (c *Cluster) healthHere() string {
	return subjectHealth + "." + hex.EncodeToString([]byte("dc-"+c.opts.Member.Datacenter))
}

// TellHealth gives a message to the OnHealth of the other nodes of this data center, or of all nodes. It does not wait, and what is told may be
// lost.
func (c *Cluster) TellHealth(message []byte, all bool) {
	subject := subjectHealth
	if !all {
		subject = c.healthHere()
	}
	_ = c.say(subject, subject, message) // who reaches nobody tells it again, or it is old by then
}

// heardHealth takes what was told on a subject. Who has not got the key of a new epoch yet cannot open it: that is known without words.
func (c *Cluster) heardHealth(m *nats.Msg) {
	text, err := c.keys.Open(m.Subject, m.Data)
	if c.opts.OnHealth == nil || errors.As(err, &seal.EpochError{}) {
		return
	}
	if err == nil {
		err = c.opts.OnHealth(text)
	}
	if err != nil {
		c.complain(err)
	}
}
