package node

import (
	"context"
	"errors"

	"causeway/control/api"
)

// IKE shows what is negotiated.
func (n *Node) IKE() []api.IKE { return []api.IKE{} }

// CommandIKE does what the operator wants.
func (n *Node) CommandIKE(context.Context, string, string) error { return errors.New("there is no tunnel with ike:") }
