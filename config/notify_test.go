package config

import (
	"strings"
	"testing"
)

func TestNotify(t *testing.T) {
	n := mustParse(t, base+"notify: {webhook: \"https://alerts.example.net/causeway?x=1\", secret: \"not a lot\"}\n").Notify
	if n.Webhook != "https://alerts.example.net/causeway?x=1" || string(n.Secret) != "not a lot" || strings.Contains(n.Secret.String(), "lot") {
		t.Errorf("%+v", n)
	}
	if n := mustParse(t, base).Notify; n.Webhook != "" || n.Secret != nil {
		t.Errorf("none: %+v", n)
	}
	for text, want := range map[string]string{
		"{}":                                    "webhook is missing: write a URL such as https://alerts.example.net/causeway",
		"{webhook: alerts.example.net}":         "is no URL of a web server",
		"{webhook: \"ftp://a.example\"}":        "is no URL of a web server",
		"{webhook: \"https://u:p@a.example/\"}": "has a password in it",
		"{webhook: \"https://a.example/\", secret: {file: relative}}": "is not an absolute path",
	} {
		_, err := Parse("c.yaml", []byte(base+"notify: "+text+"\n"))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "u:p") {
			t.Errorf("%s:\ngot  %v\nwant %s", text, err, want)
		}
	}
}
