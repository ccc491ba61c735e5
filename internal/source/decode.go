package source

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"nodeagent/internal/pod"
	"nodeagent/internal/pod/validate"
)

// maxFindings bounds what is reported of one file.
const maxFindings = 10

// wanted is one pod of a file, or one object.
type wanted struct {
	pod      *corev1.Pod
	rejected *pod.Rejection
	object   *object
}

// name names it among those of its file: two of one name cannot both be meant.
func (w wanted) name() string {
	if w.object != nil {
		return string(w.object.ref.Kind) + " " + w.object.ref.Namespace + "/" + w.object.ref.Name
	}
	return fullName(w.pod)
}

// decode reads all pods of a file, or says what is wrong with it. A file is
// taken whole or not at all: half of it is not what its author meant. Reading
// stops at the first document that is wrong.
func (m *Manifests) decode(path string, data []byte) ([]wanted, findings) {
	docs := documents(data)
	if len(docs) == 0 {
		return nil, findf(0, "file holds no pod")
	}
	if len(docs) > maxDocs {
		return nil, findf(docs[maxDocs].line, "file holds more than %d documents", maxDocs)
	}
	var all []wanted
	names := map[string]bool{}
	for _, doc := range docs {
		pods, bad := m.decodeDocument(path, doc)
		if bad != nil {
			return nil, bad[:min(len(bad), maxFindings)]
		}
		for _, w := range pods {
			key := w.name()
			if names[key] && w.object != nil {
				return nil, findf(doc.line, "file holds %s twice", key)
			}
			if names[key] {
				return nil, findings{{line: doc.line, pod: key, message: "file holds two pods of this name"}}
			}
			names[key] = true
			all = append(all, w)
		}
	}
	return all, nil
}

func (m *Manifests) decodeDocument(path string, doc document) ([]wanted, findings) {
	if bad := doc.checkSize(); bad != nil {
		return nil, bad
	}
	values, bad := toJSON(doc)
	if bad != nil {
		return nil, bad
	}
	where := &tree{doc: doc}
	var all []wanted
	for _, v := range values {
		pods, bad := m.decodeObject(path, v, where, "")
		if bad != nil {
			return nil, bad
		}
		all = append(all, pods...)
	}
	return all, nil
}

// toJSON gives the JSON values of a document: several where JSON texts follow
// each other, else one. YAML is read as kubelet reads it (YAML 1.1: yes is true),
// so that a manifest means the same to both.
func toJSON(doc document) ([]json.RawMessage, findings) {
	var jsonErr error
	if text := bytes.TrimSpace(doc.text); text[0] == '{' {
		var values []json.RawMessage
		if values, jsonErr = jsonValues(text); jsonErr == nil {
			return values, tooDeep(doc, values)
		}
	}
	if bad := doc.checkTree(); bad != nil {
		return nil, bad
	}
	convert := yaml.YAMLToJSONStrict
	if doc.merges() {
		convert = yaml.YAMLToJSON
	}
	v, err := convert(doc.text)
	if err != nil && jsonErr != nil {
		return nil, findf(doc.line, "read JSON: %s", plain(jsonErr.Error()))
	}
	if err != nil {
		return nil, yamlFindings(doc, err)
	}
	values := []json.RawMessage{v}
	return values, tooDeep(doc, values)
}

func jsonValues(text []byte) ([]json.RawMessage, error) {
	if jsonDepth(text) > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d levels", maxDepth)
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	var values []json.RawMessage
	for dec.More() {
		var v json.RawMessage
		if err := dec.Decode(&v); err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, nil
}

func tooDeep(doc document, values []json.RawMessage) findings {
	for _, v := range values {
		if jsonDepth(v) > maxDepth {
			return findf(doc.line, "document is nested deeper than %d levels", maxDepth)
		}
	}
	return nil
}

// Of what the parser quotes, these may be values: a name without its quotes, and
// what does not fit its tag.
var (
	anchorInError = regexp.MustCompile(`(?s)unknown anchor '.*' referenced`)
	valueInError  = regexp.MustCompile("(?s)cannot decode (!!\\w+) `.*` as")
)

var lineInError = regexp.MustCompile(`line (\d+): `)

// unquoted is the parser's error without what it may quote of the document.
func unquoted(err error) string {
	text := anchorInError.ReplaceAllString(err.Error(), "unknown anchor")
	return plain(valueInError.ReplaceAllString(text, "cannot decode a $1 as"))
}

// yamlFindings tells the parser's error with the line of the file in place of
// the line of the document.
func yamlFindings(doc document, err error) findings {
	text := unquoted(err)
	at := lineInError.FindStringSubmatchIndex(text)
	if at == nil {
		return findf(doc.line, "read YAML: %s", text)
	}
	n, _ := strconv.Atoi(text[at[2]:at[3]])
	return findf(doc.line+n-1, "read YAML: %s", text[at[1]:])
}

// decodeObject reads a Pod, or the pods of a list; prefix is the object's field
// path in its document.
func (m *Manifests) decodeObject(path string, text []byte, where *tree, prefix string) ([]wanted, findings) {
	var kind metav1.TypeMeta
	if err := kjson.UnmarshalCaseSensitivePreserveInts(text, &kind); err != nil {
		return nil, findf(where.line(prefix), "read apiVersion and kind: the document is no Kubernetes object")
	}
	if prefix != "" && kind == (metav1.TypeMeta{}) {
		kind = metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"} // items of a PodList say neither
	}
	switch {
	case kind.APIVersion == "v1" && kind.Kind == "Pod":
		return m.decodePod(path, text, where, prefix)
	case kind.APIVersion == "v1" && kind.Kind == "ConfigMap" && m.cfg.Objects:
		return m.decodeConfigMap(text, where, prefix)
	case kind.APIVersion == "v1" && kind.Kind == "Secret" && m.cfg.Objects:
		return m.decodeSecret(text, where, prefix)
	case kind.APIVersion == "v1" && kind.Kind == "Service" && m.cfg.Objects:
		return m.decodeService(text, where, prefix)
	case kind.APIVersion == "v1" && (kind.Kind == "List" || kind.Kind == "PodList") && prefix == "":
		return m.decodeList(path, text, where)
	case kind.APIVersion == "" || kind.Kind == "":
		return nil, findf(where.line(prefix), "apiVersion or kind is missing: a static pod begins with apiVersion: v1 and kind: Pod")
	default:
		return nil, findf(where.line(join(prefix, "kind")), "kind %s of apiVersion %s cannot run from a file: only %s", quote(kind.Kind), quote(kind.APIVersion), m.kinds())
	}
}

// kinds names what a file may hold.
func (m *Manifests) kinds() string {
	if m.cfg.Objects {
		return "v1 Pod, ConfigMap, Secret and Service, and a v1 List or PodList of them"
	}
	return "v1 Pod, and a v1 List or PodList of pods"
}

// list is a v1 List whose items are read one by one.
type list struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []json.RawMessage `json:"items"`
}

func (m *Manifests) decodeList(path string, text []byte, where *tree) ([]wanted, findings) {
	var l list
	if bad := strict(text, &l, where, ""); bad != nil {
		return nil, bad
	}
	if len(l.Items) == 0 {
		return nil, findf(where.line("items"), "list holds no pod")
	}
	var all []wanted
	for i, item := range l.Items {
		pods, bad := m.decodeObject(path, item, where, fmt.Sprintf("items[%d]", i))
		if bad != nil {
			return nil, bad
		}
		all = append(all, pods...)
	}
	return all, nil
}

func (m *Manifests) decodePod(path string, text []byte, where *tree, prefix string) ([]wanted, findings) {
	p := &corev1.Pod{}
	if bad := strict(text, p, where, prefix); bad != nil {
		return nil, bad.of(m.meant(p))
	}
	written := p.Name
	if written == "" {
		return nil, findf(where.line(join(prefix, "metadata")), "metadata.name: a static pod needs a name")
	}
	m.cfg.Default(p)
	if bad := m.identify(p, path, text); bad != nil {
		return nil, bad.at(where, prefix, fullName(p))
	}
	references := validate.Static
	if m.cfg.Objects {
		references = validate.Standalone
	}
	if bad := explained(append(references(p), m.cfg.Validate(p)...), where, prefix, fullName(p)); bad != nil {
		return nil, bad
	}
	return []wanted{{pod: p, rejected: m.reject(p)}}, nil
}

// explained are the first of the errors with their lines.
func explained(errs field.ErrorList, where *tree, prefix, pod string) findings {
	var bad findings
	for _, e := range errs[:min(len(errs), maxFindings)] {
		bad = append(bad, finding{message: describe(e), line: where.line(join(prefix, e.Field)), pod: pod})
	}
	return bad
}

// strict decodes text and finds the line of what is wrong.
func strict(text []byte, into any, where *tree, prefix string) findings {
	unknown, err := kjson.UnmarshalStrict(text, into, kjson.DisallowUnknownFields, kjson.DisallowDuplicateFields)
	if err == nil && len(unknown) == 0 {
		return nil
	}
	if bad := where.explain(into, prefix); len(bad) > 0 {
		return bad
	}
	// The tree shows no fault, so only the decoder's own words are left.
	if err != nil {
		return findf(where.line(prefix), "read fields: %s", plain(err.Error()))
	}
	return findf(where.line(prefix), "%s", plain(unknown[0].Error()))
}

func join(prefix, field string) string {
	if prefix == "" || field == "" {
		return prefix + field
	}
	return prefix + "." + field
}

func quote(s string) string { return strconv.Quote(plain(s)) }

// at gives findings the line of the field that they begin with.
func (f findings) at(where *tree, prefix, name string) findings {
	for i := range f {
		field, _, _ := bytes.Cut([]byte(f[i].message), []byte(":"))
		f[i].line = where.line(join(prefix, string(field)))
		f[i].pod = name
	}
	return f
}

// of notes whose findings they are.
func (f findings) of(name string) findings {
	for i := range f {
		f[i].pod = name
	}
	return f
}

// meant is the pod that a document is about which could not be read to its end, "" where
// that is not known.
func (m *Manifests) meant(p *corev1.Pod) string {
	namespace := cmp.Or(p.Namespace, metav1.NamespaceDefault)
	if len(validation.IsDNS1123Subdomain(p.Name))+len(validation.IsDNS1123Label(namespace)) > 0 {
		return ""
	}
	return namespace + "/" + p.Name + "-" + strings.ToLower(m.cfg.NodeName)
}

func fullName(p *corev1.Pod) string { return p.Namespace + "/" + p.Name }
