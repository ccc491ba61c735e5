package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"nodeagent/test/bed"
)

// each is how many endpoints a service has.
const each = 5

const (
	servicePort = 80
	serverPort  = 8080
	clients     = 8 // ask at a time when much is made or changed
)

// serviceAddress is the cluster IP of the i-th service.
func serviceAddress(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(100 + i/62500), byte(i / 250 % 250), byte(i%250 + 1)}), servicePort)
}

// endpoints is the range of all endpoints' addresses, which is of the namespace itself.
const endpoints = "10.200.0.0/15"

// endpointAddress is the j-th of the i-th service.
func endpointAddress(i, j int) netip.Addr {
	x := i*each + j
	return netip.AddrFrom4([4]byte{10, 200, byte(x >> 8), byte(x)})
}

// spare is an endpoint's address that none had before.
func (b *bench) spare() netip.Addr {
	b.serial++
	return netip.AddrFrom4([4]byte{10, 201, byte(b.serial >> 8), byte(b.serial)})
}

func name(i int) string { return fmt.Sprintf("service-%05d", i) }

func service(i int) *corev1.Service {
	ip := serviceAddress(i).Addr().String()
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name(i), Namespace: metav1.NamespaceDefault},
		Spec: corev1.ServiceSpec{
			ClusterIP: ip, ClusterIPs: []string{ip},
			Ports: []corev1.ServicePort{{Name: "http", Port: servicePort, TargetPort: intstr.FromInt32(serverPort)}},
		},
	}
}

// usual are the addresses of a service's endpoints.
func usual(i int) []netip.Addr {
	var all []netip.Addr
	for j := range each {
		all = append(all, endpointAddress(i, j))
	}
	return all
}

func slice(i int, ends []netip.Addr) *discoveryv1.EndpointSlice {
	port, text := int32(serverPort), "http"
	return &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: name(i), Namespace: metav1.NamespaceDefault, Labels: map[string]string{discoveryv1.LabelServiceName: name(i)}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   endpointsOf(ends),
		Ports:       []discoveryv1.EndpointPort{{Name: &text, Port: &port}},
	}
}

// endpointsOf has one in 500 on this node, which is a hundred of all: so many pods has a
// node at most, unless it is told otherwise.
func endpointsOf(ends []netip.Addr) []discoveryv1.Endpoint {
	yes, here, there := true, nodeName, "another"
	var all []discoveryv1.Endpoint
	for _, a := range ends {
		e := discoveryv1.Endpoint{Addresses: []string{a.String()}, Conditions: discoveryv1.EndpointConditions{Ready: &yes}, NodeName: &there}
		if b := a.As4(); (int(b[2])<<8|int(b[3]))%500 == 0 {
			e.NodeName = &here
		}
		all = append(all, e)
	}
	return all
}

// register makes the Node, which kube-proxy wants to see before it does anything.
func (b *bench) register(ctx context.Context) error {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName, Labels: map[string]string{corev1.LabelHostname: nodeName}}}
	var made corev1.Node
	if err := b.core.Post().Resource("nodes").Body(n).Do(ctx).Into(&made); err != nil {
		return fmt.Errorf("make the node: %w", err)
	}
	made.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: bed.NodeIP}, {Type: corev1.NodeHostName, Address: nodeName}}
	if err := b.core.Put().Resource("nodes").Name(nodeName).SubResource("status").Body(&made).Do(ctx).Error(); err != nil {
		return fmt.Errorf("say where the node is: %w", err)
	}
	return nil
}

// grow makes services until there are n.
func (b *bench) grow(ctx context.Context, n int) error {
	b.say(fmt.Sprintf("make services up to %d", n))
	making, bounded := errgroup.WithContext(ctx)
	making.SetLimit(clients)
	for i := b.there; i < n; i++ {
		making.Go(func() error {
			if err := b.makeSlice(bounded, i, usual(i)); err != nil {
				return err
			}
			return b.makeService(bounded, i)
		})
	}
	b.there = n
	return making.Wait()
}

func (b *bench) makeService(ctx context.Context, i int) error {
	if err := b.core.Post().Namespace(metav1.NamespaceDefault).Resource("services").Body(service(i)).Do(ctx).Error(); err != nil {
		return fmt.Errorf("make service %s: %w", name(i), err)
	}
	return nil
}

func (b *bench) makeSlice(ctx context.Context, i int, ends []netip.Addr) error {
	if err := b.discovery.Post().Namespace(metav1.NamespaceDefault).Resource("endpointslices").Body(slice(i, ends)).Do(ctx).Error(); err != nil {
		return fmt.Errorf("make the endpoints of %s: %w", name(i), err)
	}
	return nil
}

// setEnds gives a service other endpoints.
func (b *bench) setEnds(ctx context.Context, i int, ends []netip.Addr) error {
	patch, err := json.Marshal(map[string]any{"endpoints": endpointsOf(ends)})
	if err != nil {
		return err
	}
	if err := b.discovery.Patch(types.MergePatchType).Namespace(metav1.NamespaceDefault).Resource("endpointslices").Name(name(i)).Body(patch).Do(ctx).Error(); err != nil {
		return fmt.Errorf("change the endpoints of %s: %w", name(i), err)
	}
	return nil
}

// drop deletes a service that came during a turn.
func (b *bench) drop(ctx context.Context, i int) error {
	if err := b.core.Delete().Namespace(metav1.NamespaceDefault).Resource("services").Name(name(i)).Do(ctx).Error(); err != nil {
		return fmt.Errorf("delete service %s: %w", name(i), err)
	}
	if err := b.discovery.Delete().Namespace(metav1.NamespaceDefault).Resource("endpointslices").Name(name(i)).Do(ctx).Error(); err != nil {
		return fmt.Errorf("delete the endpoints of %s: %w", name(i), err)
	}
	return nil
}
