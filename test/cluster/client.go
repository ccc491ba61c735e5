package cluster

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
)

// Core is a client of core/v1 as an administrator, for who makes and watches objects
// by the hundred: kubectl is a process for each.
func (c *Cluster) Core() (*rest.RESTClient, error) {
	return c.client(corev1.SchemeGroupVersion, "/api", corev1.AddToScheme)
}

// Discovery is the same of discovery.k8s.io/v1.
func (c *Cluster) Discovery() (*rest.RESTClient, error) {
	return c.client(discoveryv1.SchemeGroupVersion, "/apis", discoveryv1.AddToScheme)
}

func (c *Cluster) client(group schema.GroupVersion, path string, add func(*runtime.Scheme) error) (*rest.RESTClient, error) {
	p, err := c.ca.client(admin)
	if err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	if err := add(scheme); err != nil {
		return nil, fmt.Errorf("make a client of the API server: %w", err)
	}
	return rest.RESTClientFor(&rest.Config{
		Host: c.Server(), Dial: c.bed.Connect, QPS: -1, APIPath: path,
		TLSClientConfig: rest.TLSClientConfig{CAData: c.ca.pem, CertData: p.cert, KeyData: p.key},
		WarningHandler:  rest.NoWarnings{},
		ContentConfig: rest.ContentConfig{
			GroupVersion: &group, ContentType: runtime.ContentTypeProtobuf,
			NegotiatedSerializer: serializer.NewCodecFactory(scheme).WithoutConversion(),
		},
	})
}
