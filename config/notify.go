package config

import "net/url"

// Notify says who is told that the state of a tunnel is another.
type Notify struct {
	Webhook string // URL; "": nobody
	Secret  Secret // of signatures; "": there are none
}

var notifySchema = schema{fields: []string{"webhook", "secret"}}

func (d *decoder) notify(v value, n *Notify) {
	f, ok := v.mapping(notifySchema)
	if !ok {
		return
	}
	if v, ok := f.need("webhook", "a URL such as https://alerts.example.net/causeway"); ok {
		n.Webhook, _ = v.webURL()
	}
	if v, ok := f.get("secret"); ok {
		n.Secret, _ = v.preShared()
	}
}

// webURL returns a URL that something can be sent to.
func (v value) webURL() (string, bool) {
	s, ok := v.textLike("a URL such as https://alerts.example.net/causeway")
	if !ok {
		return "", false
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		v.fail("%s is no URL of a web server: write one such as https://alerts.example.net/causeway", quote(s))
		return "", false
	case u.User != nil:
		v.fail("has a password in it, which would stand in logs: remove it, and write secret, by which what is sent is signed")
		return "", false
	}
	return s, true
}
