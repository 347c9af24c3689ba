package clickhouse

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A client speaks a server's HTTP interface. Nothing that it says, or that is logged of it, has the password.
type client struct {
	base           *url.URL // without user and query
	database       string
	user, password string
	web            *http.Client
	reply          time.Duration // how long an answer may take to begin
}

func newClient(base *url.URL, database, user, password string, reply time.Duration) *client {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		TLSHandshakeTimeout: 5 * time.Second, MaxIdleConnsPerHost: 4, IdleConnTimeout: 5 * time.Second, MaxResponseHeaderBytes: 64 << 10}
	return &client{base: base, database: database, user: user, password: password, reply: reply, web: &http.Client{Transport: transport,
		// Another host would get the password.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// A refusal is what a server answers that does not do what it was asked for.
type refusal struct {
	code int // ClickHouse's; 0: the server, or what stands before it, said none
	text string
}

func (r *refusal) Error() string { return r.text }

// Codes of refusals that something follows from.
const (
	unknownTable    = 60
	unknownDatabase = 81
	alreadyRunning  = 216
)

func codeOf(err error) int {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.code
	}
	return 0
}

// post sends a request. The caller closes the body.
func (c *client) post(ctx context.Context, params url.Values, contentType string, body []byte) (io.ReadCloser, error) {
	u := *c.base
	if params.Get("database") == "" {
		params.Set("database", c.database)
	}
	// readonly comes last: settings after it are refused.
	readonly := params.Get("readonly")
	params.Del("readonly")
	u.RawQuery = params.Encode()
	if readonly != "" {
		u.RawQuery += "&readonly=" + readonly
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("clickhouse at %s: the request cannot be made", c.base.Host)
	}
	r.Header.Set("Content-Type", contentType)
	if c.user != "" {
		r.SetBasicAuth(c.user, c.password)
	}
	answer, err := c.web.Do(r)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // without the URL, which has the statement
		}
		return nil, fmt.Errorf("clickhouse at %s: %w", c.base.Host, err)
	}
	if answer.StatusCode != http.StatusOK {
		defer answer.Body.Close()
		return nil, c.refused(answer)
	}
	return answer.Body, nil
}

var codeText = regexp.MustCompile(`^Code: ([0-9]{1,9})\b`)

func (c *client) refused(answer *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(answer.Body, 64<<10)) // what came of it says enough
	r := &refusal{}
	if m := codeText.FindSubmatch(text); m != nil {
		r.code, _ = strconv.Atoi(string(m[1])) // nine digits
	}
	said := strings.ToValidUTF8(strings.Join(strings.Fields(string(text)), " "), "?")
	if c.password != "" {
		said = strings.ReplaceAll(said, c.password, "***")
	}
	if len(said) > 300 {
		said = said[:300] + "..."
	}
	r.text = fmt.Sprintf("clickhouse at %s: %s: %s", c.base.Host, answer.Status, said)
	return r
}

// exec runs a statement that gives no rows.
func (c *client) exec(ctx context.Context, sql string, params url.Values) error {
	ctx, cancel := context.WithTimeout(ctx, c.reply)
	defer cancel()
	return c.drain(c.post(ctx, params, "text/plain; charset=utf-8", []byte(sql)))
}

// drain reads an answer to its end, which is when the server has done it.
func (c *client) drain(body io.ReadCloser, err error) error {
	if err != nil {
		return err
	}
	defer body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(body, 1<<20)); err != nil {
		return fmt.Errorf("clickhouse at %s: %w", c.base.Host, err)
	}
	return nil
}

// give runs a statement that reads a table of the request itself, by the name of b.
func (c *client) give(ctx context.Context, id, sql, structure string, rows []byte) error {
	ctx, cancel := context.WithTimeout(ctx, c.reply)
	defer cancel()
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	part, err := w.CreateFormFile("b", "b")
	if err == nil {
		_, err = part.Write(rows)
	}
	if err = errors.Join(err, w.Close()); err != nil {
		return err
	}
	return c.drain(c.post(ctx, url.Values{"query": {sql}, "query_id": {id}, "b_structure": {structure}, "b_format": {"TabSeparated"},
		"max_threads": {"1"}}, w.FormDataContentType(), form.Bytes()))
}

// maxLine bounds a row of an answer: a list of a percentile may be long.
const maxLine = 64 << 20

// rows calls a function with each row of an answer.
func (c *client) rows(ctx context.Context, sql string, params url.Values, each func([]any) error) error {
	body, err := c.post(ctx, params, "text/plain; charset=utf-8", []byte(sql+" FORMAT TabSeparated"))
	if err != nil {
		return err
	}
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		row, err := fields(lines.Text())
		if err == nil {
			err = each(row)
		}
		if err != nil {
			return err
		}
	}
	switch err := lines.Err(); {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("clickhouse at %s: %w", c.base.Host, err)
	}
	return nil
}
