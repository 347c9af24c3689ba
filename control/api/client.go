package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/sys/unix"

	"causeway/config"
)

// A Client asks the daemon behind a control socket.
type Client struct {
	socket string
	http   http.Client
}

// NewClient makes a client; nothing is connected before the first question.
func NewClient(socket string) *Client {
	var d net.Dialer
	return &Client{socket: socket, http: http.Client{
		Timeout: time.Minute, // a reload of many routes takes some seconds
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.DialContext(ctx, "unix", socket)
		}},
	}}
}

// Show asks for one of the lists, "tunnels" for instance, and decodes it into v.
func (c *Client) Show(what string, v any) error { return c.do(http.MethodGet, what, v) }

// Reload makes the daemon read its configuration file again.
func (c *Client) Reload() (r Reload, err error) {
	err = c.do(http.MethodPost, "reload", &r)
	return r, err
}

// Apply makes a document what all nodes work with; with dry, it is only tried.
func (c *Client) Apply(f *config.Fleet, dry bool) (a Applied, err error) {
	body, err := json.Marshal(f)
	if err != nil {
		return a, err
	}
	what := "apply"
	if dry {
		what += "?dry=yes"
	}
	err = c.send(http.MethodPost, what, bytes.NewReader(body), &a)
	return a, err
}

// Drain makes the daemon withdraw its endpoints, wait until no packets come, limit at most, and then stop. It returns when they have
// stopped coming.
func (c *Client) Drain(limit time.Duration) (d Drained, err error) {
	patient := c.http
	patient.Timeout += limit
	err = (&Client{socket: c.socket, http: patient}).do(http.MethodPost, "drain?limit="+limit.String(), &d)
	return d, err
}

// Rebalance has all flows go where the weights of routes say, and returns how many parts of 256 moved, of all groups together.
func (c *Client) Rebalance() (r Rebalanced, err error) {
	err = c.do(http.MethodPost, "rebalance", &r)
	return r, err
}

// CommandIKE makes the daemon do something with a tunnel's IKE, and returns when it is done.
func (c *Client) CommandIKE(command, tunnel string) error {
	var done struct{}
	return c.do(http.MethodPost, "ike/"+command+"?tunnel="+url.QueryEscape(tunnel), &done)
}

// ExportKeys makes the daemon write the keys of a tunnel to a file for a while.
func (c *Client) ExportKeys(tunnel string, span time.Duration) (f KeyFile, err error) {
	err = c.do(http.MethodPost, "ike/export-keys?tunnel="+url.QueryEscape(tunnel)+"&for="+span.String(), &f)
	return f, err
}

func (c *Client) do(method, what string, v any) error { return c.send(method, what, nil, v) }

func (c *Client) send(method, what string, text io.Reader, v any) error {
	req, err := http.NewRequest(method, "http://causeway/v1/"+what, text)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.explain(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return json.NewDecoder(resp.Body).Decode(v)
	}
	return c.refused(resp)
}

// refused is the error of an answer that is one.
func (c *Client) refused(resp *http.Response) error {
	var p problem
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if json.Unmarshal(body, &p) != nil || p.Error == "" {
		return fmt.Errorf("control socket %s: %s", c.socket, resp.Status)
	}
	return errors.New(p.Error)
}

func (c *Client) explain(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("control socket %s: no daemon answers there; is causeway running? --socket names another socket: %w", c.socket, err)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("control socket %s: only the daemon's user may use it: %w", c.socket, err)
	}
	return fmt.Errorf("control socket %s: %w", c.socket, err)
}
