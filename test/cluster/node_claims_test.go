package cluster_test

import (
	"io"
	"net/http"
	"net/http/httputil"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"

	"nodeagent/test/bed"
	"nodeagent/test/image"
)

// TestNodeObjects is what a node may read for its pods under the real node authorizer,
// and nothing before a pod of its own asks for it: claims with their volumes, tokens
// and Secrets.
func TestNodeObjects(t *testing.T) {
	n := newControlPlane(t)
	f, file := newFront(n)
	n.AgentProcess = bed.Agent(t, n.bed, bed.AgentOptions{Kubelet: n.authentication(), Args: []string{"--kubeconfig", file}})
	n.kubectl("wait", "--for=create", "node/node", "--timeout=60s")
	n.registered()
	t.Run("claims", func(t *testing.T) { n.in(t).claims(file) })
	t.Run("late claim", func(t *testing.T) { n.in(t).lateClaim() })
	t.Run("token", func(t *testing.T) { n.in(t).tokenRotates(f) })
	t.Run("secret", func(t *testing.T) { n.in(t).secretChanges() })
}

// directory makes one of the host's in the bed.
func (n *node) directory(name string) string {
	n.t.Helper()
	dir := filepath.Join(n.bed.Dir(), name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		n.t.Fatal(err)
	}
	return dir
}

// volume is a PersistentVolume of what more says, and its claim.
func volume(name, class, more string) string {
	return `
apiVersion: v1
kind: PersistentVolume
metadata: {name: ` + name + `}
spec:
  capacity: {storage: 1Mi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: ` + class + `
` + more
}

func claim(name, class string) string {
	return `
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: ` + name + `}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Mi}}
  storageClassName: ` + class + `
---`
}

// withClaims is a pod that has claims at /NAME, and a command.
func withClaims(name, more, command string, claims ...string) string {
	text := `
apiVersion: v1
kind: Pod
metadata: {name: ` + name + `}
spec:
` + more + `  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: ` + image.Shell + `
    imagePullPolicy: Never
    command: [/bin/sh, -c, "` + command + `"]
    volumeMounts:
`
	for _, c := range claims {
		text += "    - {name: " + c + ", mountPath: /" + c + "}\n"
	}
	text += "  volumes:\n"
	for _, c := range claims {
		text += "  - {name: " + c + ", persistentVolumeClaim: {claimName: " + c + "}}\n"
	}
	return text
}

// claims: volumes that the control plane has bound, one of them only when the
// scheduler had chosen the node, are the host's directories, and what one pod left
// there the next one finds. A node may read a claim and its volume only as long as
// a pod of its own has them.
func (n *node) claims(file string) {
	plain, local := n.directory("plain"), n.directory("local")
	n.apply(`
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: waits}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
`)
	n.apply(volume("plain", "by-hand", "  hostPath: {path: "+strconv.Quote(plain)+", type: Directory}\n") + claim("plain", "by-hand") +
		volume("local", "waits", "  local: {path: "+strconv.Quote(local)+"}\n"+
			"  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [node]}]}]}}\n") + claim("local", "waits"))
	n.kubectl("wait", "--for=jsonpath={.status.phase}=Bound", "pvc/plain", "--timeout=60s")
	if got := n.jsonpath("{.status.phase}", "pvc", "local"); got != "Pending" {
		n.t.Errorf("before there is a pod the claim is %s", got)
	}
	n.mayNot(file, "pvc/plain", "pv/plain")
	n.apply(withClaims("writes", "", "echo plain > /plain/said; echo local > /local/said; exec sleep 100000", "plain", "local"))
	n.kubectl("wait", ready, "pod/writes", "--timeout=60s")
	for _, dir := range []string{plain, local} {
		// Ready says that the shell began, not that it wrote.
		for deadline := time.Now().Add(time.Minute); ; {
			if text, err := os.ReadFile(filepath.Join(dir, "said")); err == nil && string(text) == filepath.Base(dir)+"\n" {
				break
			} else if time.Now().After(deadline) {
				n.t.Fatalf("in %s the pod has left %q, %v", dir, text, err)
			}
		}
	}
	n.kubectl("--kubeconfig="+file, "get", "pvc/plain", "pv/plain")
	n.restart()
	n.kubectl("delete", "pod", "writes", "--timeout=60s")
	n.apply(withClaims("reads", "  restartPolicy: Never\n", "cat /plain/said /local/said", "plain", "local"))
	n.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/reads", "--timeout=60s")
	if got := n.kubectl("logs", "reads"); got != "plain\nlocal\n" {
		n.t.Errorf("the next pod finds %q", got)
	}
	n.kubectl("delete", "pod", "reads", "--timeout=60s")
	n.kubectl("delete", "pvc", "plain", "local", "--timeout=60s")
	for _, dir := range []string{plain, local} {
		if _, err := os.Stat(filepath.Join(dir, "said")); err != nil {
			n.t.Errorf("with the claim goes what was in it: %v", err)
		}
	}
	n.kubectl("delete", "pv", "plain", "local", "--timeout=60s")
}

// mayNot wants the authorizer to keep objects from the node.
func (n *node) mayNot(file string, objects ...string) {
	n.t.Helper()
	for _, o := range objects {
		_, err := n.c.Kubectl(n.ctx, "--kubeconfig="+file, "get", o)
		refused(n.t, err, "no relationship found between node 'node' and this object")
	}
}

// lateClaim: a pod that is bound to the node before its claim has a volume waits for
// it, says so, and runs when it comes.
func (n *node) lateClaim() {
	dir := n.directory("late")
	n.apply(claim("late", "by-hand") + withClaims("early", "  nodeName: node\n", "exec sleep 100000", "late"))
	n.kubectl("wait", "--for=jsonpath={.status.containerStatuses[0].state.waiting.reason}=ContainerCreating", "pod/early", "--timeout=60s")
	n.event("early", "FailedMount", "PVC default/late")
	n.apply(volume("late", "by-hand", "  hostPath: {path: "+strconv.Quote(dir)+"}\n"))
	n.kubectl("wait", ready, "pod/early", "--timeout=90s")
	n.kubectl("delete", "pod", "early", "--timeout=60s")
	n.kubectl("delete", "pvc/late", "pv/late", "--timeout=60s")
}

// event waits for one about a pod.
func (n *node) event(pod, reason, words string) {
	n.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		got := n.jsonpath("{.items[*].message}", "events", "--field-selector", "reason="+reason+",involvedObject.name="+pod)
		if strings.Contains(got, words) {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("the %s events of %s say %q, want %q", reason, pod, got, words)
		}
	}
}

// tokenLife is how long a token lives by the answer that the node gets: the API
// server gives none for less than ten minutes.
const tokenLife = 8

// tokenRotates: before its time is over, a token is replaced in the running pod by
// another one that the API server takes for this pod's.
func (n *node) tokenRotates(f *front) {
	f.breaks(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPost || !strings.HasSuffix(r.URL.Path, "/token") {
			return false
		}
		p := httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(f.to); p.Out.Header.Del("Accept-Encoding") }, Transport: f.node, ModifyResponse: shortLived}
		p.ServeHTTP(w, r)
		return true
	})
	defer f.breaks(nil)
	n.apply(`
apiVersion: v1
kind: Pod
metadata: {name: known}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: c, image: ` + image.Shell + `, imagePullPolicy: Never, command: [/bin/sleep, "100000"], volumeMounts: [{name: token, mountPath: /token}]}
  volumes: [{name: token, projected: {sources: [{serviceAccountToken: {path: token, audience: vault, expirationSeconds: 600}}]}}]
`)
	n.kubectl("wait", ready, "pod/known", "--timeout=60s")
	uid := n.jsonpath("{.metadata.uid}", "pod", "known")
	seen := map[string]bool{}
	for deadline := time.Now().Add(2 * time.Minute); len(seen) < 3; {
		token := n.kubectl("exec", "known", "--", "cat", "/token/token")
		if !seen[token] {
			seen[token] = true
			if got := n.review(token); got != "system:serviceaccount:default:default "+uid {
				n.t.Errorf("the API server takes token %d for that of %q, want pod %s", len(seen), got, uid)
			}
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("there were %d tokens", len(seen))
		}
	}
	if got := n.container("known"); !strings.HasSuffix(got, " 0") {
		n.t.Errorf("for the tokens the container was restarted: %s", got)
	}
	n.kubectl("delete", "pod", "known", "--timeout=60s")
}

// shortLived has the API server's answer say that the token lives for a moment; the
// token itself is as it gave it.
func shortLived(resp *http.Response) error {
	scheme := runtime.NewScheme()
	if err := authenticationv1.AddToScheme(scheme); err != nil {
		return err
	}
	s := protobuf.NewSerializer(scheme, scheme)
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode >= http.StatusBadRequest {
		resp.Body = io.NopCloser(strings.NewReader(string(body)))
		return err
	}
	var answer authenticationv1.TokenRequest
	if _, _, err := s.Decode(body, nil, &answer); err != nil {
		return err
	}
	*answer.Spec.ExpirationSeconds = tokenLife
	var out strings.Builder
	if err := s.Encode(&answer, &out); err != nil {
		return err
	}
	resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader(out.String())), int64(out.Len())
	resp.Header.Set("Content-Length", strconv.Itoa(out.Len()))
	return nil
}

// review asks the API server whose a token is: the account and the pod's UID.
func (n *node) review(token string) string {
	n.t.Helper()
	cmd := n.c.Command("create", "-f", "-", "-o", `jsonpath={.status.user.username} {.status.user.extra.authentication\.kubernetes\.io/pod-uid[0]}`)
	cmd.Stdin = strings.NewReader(`{apiVersion: authentication.k8s.io/v1, kind: TokenReview, spec: {audiences: [vault], token: ` + strconv.Quote(token) + `}}`)
	out, err := n.c.Finish(n.ctx, cmd)
	if err != nil {
		n.t.Fatal(err)
	}
	return out
}

// secretChanges: a Secret that changes reaches its running pod, key by key, and a
// mount of one key by subPath stays as it was.
func (n *node) secretChanges() {
	n.kubectl("create", "secret", "generic", "words", "--from-literal=word=first", "--from-literal=goes=yes")
	n.apply(`
apiVersion: v1
kind: Pod
metadata: {name: listens}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: ` + image.Shell + `
    imagePullPolicy: Never
    command: [/bin/sleep, "100000"]
    readinessProbe: {periodSeconds: 1, exec: {command: [/bin/sh, -c, "grep -q second /words/word && test -s /words/comes && test ! -e /words/goes"]}}
    volumeMounts: [{name: words, mountPath: /words}, {name: words, mountPath: /word, subPath: word}]
  volumes: [{name: words, secret: {secretName: words}}]
`)
	n.kubectl("wait", `--for=jsonpath={.status.phase}=Running`, "pod/listens", "--timeout=60s")
	n.kubectl("patch", "secret", "words", "-p", `{"stringData":{"word":"second","comes":"yes"},"data":{"goes":null}}`)
	n.kubectl("wait", ready, "pod/listens", "--timeout=60s")
	if got := n.kubectl("exec", "listens", "--", "/bin/sh", "-c", "cat /word; stat -f -c %T /words"); got != "firsttmpfs\n" {
		n.t.Errorf("the mount of one key and its file system are %q", got)
	}
	if got := n.container("listens"); !strings.HasSuffix(got, " 0") {
		n.t.Errorf("for the change the container was restarted: %s", got)
	}
	n.kubectl("delete", "pod", "listens", "--timeout=60s")
	n.kubectl("delete", "secret", "words")
}
