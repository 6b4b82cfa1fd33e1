package cluster

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/scale"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/deployment"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/podautoscaler"
	"k8s.io/kubernetes/pkg/controller/podautoscaler/metrics"
	"k8s.io/kubernetes/pkg/controller/replicaset"
	"k8s.io/kubernetes/pkg/controller/serviceaccount"
	"k8s.io/kubernetes/pkg/controller/statefulset"
	resourceclient "k8s.io/metrics/pkg/client/clientset/versioned/typed/metrics/v1beta1"
	"k8s.io/metrics/pkg/client/custom_metrics"
	"k8s.io/metrics/pkg/client/external_metrics"
)

// control runs those of kube-controller-manager's controllers that make pods, set how many
// there are, and delete what belonged to something deleted. All of them would need the code
// of scheduler and kubelet to be built too.
func (p *plane) control(ctx context.Context) error {
	log, err := os.Create(p.file("controllers.log"))
	if err != nil {
		return err
	}
	logging := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(logging)
	if err := errors.Join(logging.Set("logtostderr", "false"), logging.Set("stderrthreshold", "FATAL")); err != nil {
		return err
	}
	klog.SetOutput(log)
	config := rest.CopyConfig(p.config) // who writes a field is known by it
	config.UserAgent = "kube-controller-manager"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	objects := informers.NewSharedInformerFactory(client, 0)
	apps, core := objects.Apps().V1(), objects.Core().V1()
	deployments, err := deployment.NewDeploymentController(ctx, apps.Deployments(), apps.ReplicaSets(), core.Pods(), client)
	if err != nil {
		return fmt.Errorf("deployments: %w", err)
	}
	replicas := replicaset.NewReplicaSetController(ctx, apps.ReplicaSets(), core.Pods(), client, replicaset.BurstReplicas)
	sets := statefulset.NewStatefulSetController(ctx, core.Pods(), apps.StatefulSets(), core.PersistentVolumeClaims(),
		apps.ControllerRevisions(), client)
	accounts, err := serviceaccount.NewServiceAccountsController(klog.FromContext(ctx), core.ServiceAccounts(),
		core.Namespaces(), client, serviceaccount.DefaultServiceAccountsControllerOptions())
	if err != nil {
		return fmt.Errorf("service accounts: %w", err)
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery()))
	scales, err := autoscaler(ctx, config, client, mapper, objects)
	if err != nil {
		return fmt.Errorf("autoscaler: %w", err)
	}
	others, err := metadata.NewForConfig(config)
	if err != nil {
		return err
	}
	started := make(chan struct{})
	both := informerfactory.NewInformerFactory(objects, metadatainformer.NewSharedInformerFactory(others, 0))
	garbage, err := garbagecollector.NewGarbageCollector(ctx, client, others, mapper,
		garbagecollector.DefaultIgnoredResources(), both, started)
	if err != nil {
		return fmt.Errorf("garbage collector: %w", err)
	}
	both.Start(ctx.Done())
	close(started)
	for _, run := range []func(context.Context, int){deployments.Run, replicas.Run, sets.Run, accounts.Run, scales.Run} {
		go run(ctx, 2)
	}
	go garbage.Run(ctx, 2, 30*time.Second)
	go garbage.Sync(ctx, discovery.NewDiscoveryClient(client.RESTClient()), 30*time.Second)
	return nil
}

// autoscaler has nothing to measure by, and keeps the number of pods between its limits.
func autoscaler(ctx context.Context, config *rest.Config, client kubernetes.Interface,
	mapper *restmapper.DeferredDiscoveryRESTMapper, objects informers.SharedInformerFactory) (
	*podautoscaler.HorizontalController, error) {
	scales, err := scale.NewForConfig(config, mapper, dynamic.LegacyAPIPathResolverFunc,
		scale.NewDiscoveryScaleKindResolver(client.Discovery()))
	if err != nil {
		return nil, err
	}
	resources, err := resourceclient.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	external, err := external_metrics.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	custom := custom_metrics.NewForConfig(config, mapper, custom_metrics.NewAvailableAPIsGetter(client.Discovery()))
	return podautoscaler.NewHorizontalController(ctx, client.CoreV1(), scales, client.AutoscalingV2(), mapper,
		metrics.NewRESTMetricsClient(resources, custom, external), objects.Autoscaling().V2().HorizontalPodAutoscalers(),
		objects.Core().V1().Pods(), 2*time.Second, 5*time.Minute, 0.1, 5*time.Minute, 30*time.Second), nil
}
