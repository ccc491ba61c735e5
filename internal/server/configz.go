package server

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"

	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
)

func encode(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) }

// configz shows the configuration in kubelet's form, without its secrets.
func (a *NodeAPI) configz(w http.ResponseWriter, _ *http.Request, _ []string) {
	shown := ShownConfig(a.cfg.Kubelet())
	w.Header().Set("Content-Type", "application/json")
	_ = encode(w, map[string]any{"kubeletconfig": shown})
}

// masked stands for what is not shown.
const masked = "<masked>"

// ShownConfig is a copy in which what lets somebody in elsewhere is masked: the
// headers that static pods are asked for with, and all of that address but where
// it leads. Paths of keys are shown; keys are not in a configuration.
func ShownConfig(cfg *kubeletv1beta1.KubeletConfiguration) *kubeletv1beta1.KubeletConfiguration {
	out := cfg.DeepCopy()
	for name, values := range out.StaticPodURLHeader {
		for i := range values {
			out.StaticPodURLHeader[name][i] = masked
		}
	}
	if out.StaticPodURL != "" {
		u, err := url.Parse(out.StaticPodURL)
		if err != nil {
			out.StaticPodURL = masked
			return out
		}
		u.User, u.RawQuery, u.Fragment = nil, "", ""
		out.StaticPodURL = u.String()
	}
	return out
}
