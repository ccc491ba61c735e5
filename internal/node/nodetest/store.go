package nodetest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/watch"
)

var (
	nodesResource  = schema.GroupResource{Resource: "nodes"}
	leasesResource = schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}
)

// allowed refuses what the Node authorizer refuses.
func (s *Server) allowed(r *http.Request) error {
	if !strings.HasPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name=") {
		return apierrors.NewForbidden(nodesResource, "", fmt.Errorf("a node may only look at itself"))
	}
	return nil
}

// do carries a request out.
func (s *Server) do(req Request, r *http.Request, body []byte) (runtime.Object, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch req.Resource + " " + req.Verb {
	case "nodes list":
		if err := s.allowed(r); err != nil {
			return nil, err
		}
		list := &corev1.NodeList{ListMeta: metav1.ListMeta{ResourceVersion: fmt.Sprint(s.version)}}
		if s.node != nil {
			list.Items = append(list.Items, *s.node.DeepCopy())
		}
		return list, nil
	case "nodes create":
		return s.createNode(body)
	case "nodes patch":
		return s.patchNode(body)
	case "leases get":
		if s.lease == nil {
			return nil, apierrors.NewNotFound(leasesResource, "node")
		}
		return s.lease.DeepCopy(), nil
	case "leases create", "leases update":
		return s.putLease(req.Verb, body)
	}
	return nil, apierrors.NewMethodNotSupported(nodesResource, r.Method+" "+r.URL.Path)
}

func (s *Server) createNode(body []byte) (runtime.Object, error) {
	n := &corev1.Node{}
	if err := decode(body, n); err != nil {
		return nil, err
	}
	if s.node != nil {
		return nil, apierrors.NewAlreadyExists(nodesResource, n.Name)
	}
	s.made++
	n.UID = types.UID("uid-" + strconv.Itoa(s.made))
	s.putNode(watch.Added, n)
	return n.DeepCopy(), nil
}

func (s *Server) patchNode(body []byte) (runtime.Object, error) {
	if s.node == nil {
		return nil, apierrors.NewNotFound(nodesResource, "node")
	}
	original, err := json.Marshal(s.node)
	if err != nil {
		return nil, err
	}
	merged, err := strategicpatch.StrategicMergePatch(original, body, corev1.Node{})
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	n := &corev1.Node{}
	if err := json.Unmarshal(merged, n); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if n.UID != s.node.UID {
		return nil, apierrors.NewInvalid(schema.GroupKind{Kind: "Node"}, n.Name,
			field.ErrorList{field.Invalid(field.NewPath("metadata", "uid"), n.UID, "field is immutable")})
	}
	n.Spec = s.node.Spec // the status subresource leaves it alone
	s.putNode(watch.Modified, n)
	return n.DeepCopy(), nil
}

func (s *Server) putNode(kind watch.EventType, n *corev1.Node) {
	s.version++
	n.ResourceVersion = fmt.Sprint(s.version)
	if s.forgets != nil {
		s.forgets(n)
	}
	s.node = n
	s.tellLocked(kind, n)
}

func (s *Server) putLease(verb string, body []byte) (runtime.Object, error) {
	l := &coordinationv1.Lease{}
	if err := decode(body, l); err != nil {
		return nil, err
	}
	switch {
	case verb == "create" && s.lease != nil:
		return nil, apierrors.NewAlreadyExists(leasesResource, l.Name)
	case verb == "update" && s.lease == nil:
		return nil, apierrors.NewNotFound(leasesResource, l.Name)
	case verb == "update" && l.ResourceVersion != "" && l.ResourceVersion != s.lease.ResourceVersion:
		return nil, apierrors.NewConflict(leasesResource, l.Name, fmt.Errorf("the object has been modified"))
	}
	s.version++
	l.ResourceVersion = fmt.Sprint(s.version)
	s.lease = l
	return l.DeepCopy(), nil
}

// Node is a copy of the Node, nil if there is none.
func (s *Server) Node() *corev1.Node {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.node == nil {
		return nil
	}
	return s.node.DeepCopy()
}

// Lease is a copy of the lease, nil if there is none.
func (s *Server) Lease() *coordinationv1.Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease == nil {
		return nil
	}
	return s.lease.DeepCopy()
}

// Change lets somebody else change the Node.
func (s *Server) Change(f func(*corev1.Node)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.node.DeepCopy()
	f(n)
	s.putNode(watch.Modified, n)
}

// Put makes the Node what somebody else makes it, with a UID of its own.
func (s *Server) Put(n *corev1.Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made++
	n = n.DeepCopy()
	n.UID = types.UID("uid-" + strconv.Itoa(s.made))
	s.putNode(watch.Added, n)
}

// Delete deletes the Node.
func (s *Server) Delete() {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.node
	s.node = nil
	s.version++
	n.ResourceVersion = fmt.Sprint(s.version)
	s.tellLocked(watch.Deleted, n)
}

// ChangeLease lets somebody else change the lease, or delete it by a nil result.
func (s *Server) ChangeLease(f func(*coordinationv1.Lease) *coordinationv1.Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lease = f(s.lease.DeepCopy()); s.lease != nil {
		s.version++
		s.lease.ResourceVersion = fmt.Sprint(s.version)
	}
}
