package server

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestStatusz: people have text, programs that name its form have that.
func TestStatusz(t *testing.T) {
	b := newBed(t, func(cfg *NodeAPIConfig) { cfg.Version = "v1.2.3+x" }).run(t)
	for accept, text := range map[string]bool{"": true, "*/*": true, "application/json": true, "application/json;as=Statusz;v=v9;g=config.k8s.io": true,
		"text/plain, application/json;as=Statusz;v=v1beta1;g=config.k8s.io": false} {
		got := ask(t, b.boss(t), http.MethodGet, b.url+"/statusz", "Accept", accept)
		if got.code != 200 || !strings.Contains(got.body, "v1.2.3+x") || strings.Contains(got.body, "Warning:") != text {
			t.Errorf("%q: %d %s", accept, got.code, got.body)
		}
		if text {
			continue
		}
		var s Statusz
		if err := json.Unmarshal([]byte(got.body), &s); err != nil || s.Kind != "Statusz" || s.StartTime.IsZero() || !slices.Contains(s.Paths, "/metrics") || slices.Contains(s.Paths, "/exec") || slices.Contains(s.Paths, "/checkpoint") {
			t.Errorf("%s, %v", got.body, err)
		}
	}
}
